-- The delivery is over, the work is not: deliver the request again after a delay (a retry), or at once, in its old place
-- among others, as if the attempt had not been ('': a release).
-- number, token, delay, the error as JSON
-- '1', or 'lost', 'gone': see delivery_state.
local number, token, delay, reason = ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local before = delivery_state(number, token)
if before then return before end

local key = record(number)
local found = redis.call('HMGET', key, 'queue', 'priority', 'ended', 'attempt', 'at', 'since', 'parent')
local queue, priority = found[1], found[2]
local due = found[5]
redis.call('ZREM', leases(queue), number)
if not found[3] then
  if delay == '' then
    local attempt = redis.call('HINCRBY', key, 'attempt', -1)
    if attempt == 0 and found[6] then waits_since(number, found[6]) end
  else
    due = exact(clock + tonumber(delay))
    add_event(number, 'retrying',
      '{"attempt":' .. found[4] .. ',"next_attempt_at":' .. due .. ',"error":' .. reason .. '}', found[7])
  end
  redis.call('ZADD', redeliveries(queue, priority), due, number)
end
redis.call('HSET', key, 'token', '', 'settled', token .. ' 1')
wake(queue)
return '1'
