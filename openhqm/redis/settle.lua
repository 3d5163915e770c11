-- The end of a loan and of the work: reply, ending, event, dead letter and the end of the message, in one step.
-- number, token, status ('': no ending, only an acknowledgement), reply, ttl, dead letters, letter ('': none)
-- '1': so it is. '0': it had ended before, and the reply was dropped. 'lost', 'gone': see loan_state.
local number, token, status, reply, ttl, letters, letter =
  ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local before = loan_state(number, token)
if before then return before end

local key = record(number)
local found = redis.call('HMGET', key, 'queue', 'lane', 'recorded', 'ended')
local queue, lane, recorded, ended = found[1], found[2], found[3] == '1', found[4]
local first = not ended

redis.call('ZREM', loans(queue), number)
if first and letter ~= '' then
  redis.call('XADD', letters, string.format('%.0f-0', redis.call('INCR', letters .. ':last')),
    'at', now, 'letter', letter)
end
if not recorded then
  forget(number, queue, lane)
  redis.call('DEL', key)
else
  if first then
    if status ~= '' then end_request(number, queue, lane, status, reply, ttl) else forget(number, queue, lane) end
  end
  redis.call('HSET', key, 'token', '', 'settled', token .. (first and ' 1' or ' 0'))
end
wake(queue)
return first and '1' or '0'
