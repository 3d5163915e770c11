-- The next attempt begins after a delay, with a new message.
-- number, token, body, delay, the error as JSON
-- '1'; '0' where it has ended; 'lost', 'gone': see delivery_state.
local number, token, body, delay, reason = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
refuse_when_full()
local before = delivery_state(number, token)
if before then return before end
local key = record(number)
local found = redis.call('HMGET', key, 'ended', 'attempt', 'parent')
if not found[1] then
  local due = exact(clock + delay)
  add_event(number, 'retrying',
    '{"attempt":' .. found[2] .. ',"next_attempt_at":' .. due .. ',"error":' .. reason .. '}', found[3])
  publish_again(number, body, due)
end
local outcome = found[1] and '0' or '1'
redis.call('HSET', key, 'token', '', 'settled', token .. ' ' .. outcome)
return outcome
