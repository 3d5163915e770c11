-- The loan of a message that lies with a broker is over, the work is not.
-- number, token, how ('back': the attempt was not one; 'hold': the same copy after a delay; 'renew': a new one that is
-- marked), delay, the error as JSON, body of the new one
-- '1'; '0' where it has ended; 'lost', 'gone': see loan_state.
local number, token, how, delay, reason, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
if how == 'renew' then refuse_when_full() end

local before = loan_state(number, token)
if before then return before end

local key = record(number)
local found = redis.call('HMGET', key, 'queue', 'ended', 'attempt')
local queue, attempt = found[1], found[3]
-- What is held is on loan: whoever holds it has to hear of its ending.
if how ~= 'hold' or found[2] then redis.call('ZREM', loans(queue), number) end
if not found[2] then
  if how == 'back' then
    redis.call('HINCRBY', key, 'attempt', -1)
  else
    local due = exact(clock + tonumber(delay))
    redis.call('HSET', key, 'due', due)
    add_event(number, 'retrying', '{"attempt":' .. attempt .. ',"next_attempt_at":' .. due .. ',"error":' .. reason .. '}')
    if how == 'renew' then
      redis.call('HSET', key, 'carried', attempt, 'body', body, 'told', 1)
      redis.call('ZADD', unpublished, now, number)
    end
  end
end
local outcome = found[2] and '0' or '1'
redis.call('HSET', key, 'token', '', 'settled', token .. ' ' .. outcome)
return outcome
