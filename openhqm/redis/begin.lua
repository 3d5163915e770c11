-- Count an attempt on a request whose message a broker has lent. `policy/copies.py` has the rule.
-- number, the attempts that the copy carries, token
-- {'begun', attempt}; {'wait', seconds, attempts so far}; nothing where the copy is worth nothing.
local number, carried, token = ARGV[2], tonumber(ARGV[3]), ARGV[4]
refuse_when_full()
local key = record(number)
local found = redis.call('HMGET', key, 'queue', 'ended', 'carried', 'attempt', 'due')
if not found[1] or found[2] or carried < tonumber(found[3] or '0') then return {} end
local attempt, due = tonumber(found[4]), tonumber(found[5] or '0')
if due > clock then return {'wait', exact(due - clock), attempt} end
attempt = math.max(attempt, carried) + 1
redis.call('HSET', key, 'attempt', attempt, 'token', token, 'carried', carried)
redis.call('HDEL', key, 'due', 'body', 'doubted')
redis.call('ZREM', unpublished, number)
redis.call('ZADD', loans(found[1]), now, number)
add_event(number, 'processing', '{"attempt":' .. attempt .. '}')
return {'begun', attempt}
