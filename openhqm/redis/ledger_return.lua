-- The delivery is over, and its message waits in its channel again.
-- number, token, counted ('1': the attempt counts, for the lease was lost; '': it does not)
-- '1'; '0' where it has ended; 'lost', 'gone': see delivery_state.
local number, token, counted = ARGV[2], ARGV[3], ARGV[4] == '1'
local before = delivery_state(number, token)
if before then return before end
local key = record(number)
local found = redis.call('HMGET', key, 'channel', 'ended', 'since')
if found[2] then return '0' end
redis.call('ZREM', working(found[1]), number)
redis.call('ZADD', sent(found[1]), now, number)
if not counted then
  local attempt = redis.call('HINCRBY', key, 'attempt', -1)
  if attempt == 0 and found[3] then waits_since(number, found[3]) end
  redis.call('HSET', key, 'token', '', 'settled', token .. ' 1')
end
return '1'
