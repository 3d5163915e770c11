-- Count an attempt on a request whose message a broker has delivered.
-- number, generation of the message, token, the window of a channel ('': none; else the body stays), the channel
-- {attempt, 1 where another message waits for the room}. Attempt 0, or nothing, where the message is worth nothing: its
-- request has ended, or a newer message counts.
local number, generation, token = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local STALE_SECONDS = 10
refuse_when_full()
local key = record(number)
local found = redis.call('HMGET', key, 'channel', 'ended', 'generation', 'since', 'windowed', 'parent')
if not found[1] or found[2] or generation < tonumber(found[3]) then
  if ARGV[5] ~= '' and redis.call('ZREM', stale(ARGV[6]), number) == 1 and redis.call('EXISTS', crowded(ARGV[6])) == 1 then
    return {0, 1}
  end
  return {}
end
local attempt = redis.call('HINCRBY', key, 'attempt', 1)
if found[4] then redis.call('ZREM', unbegun, number) end
redis.call('HSET', key, 'token', token)
redis.call('HDEL', key, 'claimed')
if found[5] then redis.call('SREM', claimed_in(found[1]), number) end
if ARGV[5] == '' then
  redis.call('HDEL', key, 'body')
else
  local since = redis.call('ZSCORE', sent(found[1]), number)
  -- What was published well before it has come, or is lost.
  if since then redis.call('ZREMRANGEBYSCORE', stale(found[1]), '-inf', exact(tonumber(since) - STALE_SECONDS)) end
end
redis.call('ZREM', outbox, number)
redis.call('ZREM', sent(found[1]), number)
redis.call('ZADD', working(found[1]), now, number)
add_event(number, 'processing', '{"attempt":' .. attempt .. '}', found[6])
return {attempt, ARGV[5] ~= '' and redis.call('EXISTS', crowded(found[1])) or 0}
