-- The loan is over, the work is not: lend it again after a delay (a retry), or at once and uncounted ('': given back).
-- number, token, delay, the error as JSON
-- '1', or 'lost', 'gone': see loan_state. Second: when it is due.
local number, token, delay, reason = ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local before = loan_state(number, token)
if before then return {before, ''} end

local key = record(number)
local found = redis.call('HMGET', key, 'queue', 'lane', 'recorded', 'ended', 'attempt', 'at')
local queue, lane = found[1], found[2]
local due = found[6]  -- given back: in its old place among others that were
redis.call('ZREM', loans(queue), number)
if not found[4] then
  if delay == '' then
    redis.call('HINCRBY', key, 'attempt', -1)
  else
    due = exact(clock + tonumber(delay))
    if found[3] == '1' then
      add_event(number, 'retrying',
        '{"attempt":' .. found[5] .. ',"next_attempt_at":' .. due .. ',"error":' .. reason .. '}')
    end
  end
  redis.call('ZADD', again(queue, lane), due, number)
end
redis.call('HSET', key, 'token', '', 'settled', token .. ' 1')
wake(queue)
return {'1', due}
