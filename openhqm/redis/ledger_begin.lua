-- Count an attempt on a request whose message a broker has delivered.
-- number, generation of the message, token
-- {attempt}; nothing where the message is worth nothing: its request has ended, or a newer message counts.
local number, generation, token = ARGV[2], tonumber(ARGV[3]), ARGV[4]
refuse_when_full()
local key = record(number)
local found = redis.call('HMGET', key, 'channel', 'ended', 'generation', 'since')
if not found[1] or found[2] or generation < tonumber(found[3]) then return {} end
local attempt = redis.call('HINCRBY', key, 'attempt', 1)
if found[4] then redis.call('ZREM', unbegun, number) end
redis.call('HSET', key, 'token', token)
redis.call('HDEL', key, 'body', 'claimed')
redis.call('ZREM', outbox, number)
redis.call('ZREM', sent(found[1]), number)
redis.call('ZADD', working(found[1]), now, number)
add_event(number, 'processing', '{"attempt":' .. attempt .. '}')
return {attempt}
