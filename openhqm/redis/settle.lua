-- The end of a delivery and of the work: reply, ending, event, dead letter and the end of the message, in one step.
-- number, token, status ('': no ending, only an acknowledgement), reply, ttl, dead letters, letter ('': none), the
-- fields of the reply where a stream asks for them
-- '1': it is done, and the reason behind it where the reply could not be put into its stream. '0': the request had ended
-- before, and the reply was dropped. 'lost', 'gone': see delivery_state. A request that was to be acknowledged as one
-- that has ended, and has not (this Redis may have taken over from one that knew more), is delivered again.
local number, token, status, reply, ttl, letters, letter =
  ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local before = delivery_state(number, token)
if before then return before end

local key = record(number)
local found = redis.call('HMGET', key, 'queue', 'priority', 'ended')
local queue, priority = found[1], found[2]
local first = not found[3]
local forgotten = first and status == ''

local problem = nil
redis.call('ZREM', leases(queue), number)
if first and letter ~= '' then
  add_letter(letters, letter, number)
end
if forgotten then
  redis.call('ZADD', redeliveries(queue, priority), now, number)
elseif first then
  problem = end_request(number, queue, priority, status, reply, ttl, 9)
end
redis.call('HSET', key, 'token', '', 'settled', token .. (first and ' 1' or ' 0'))
wake(queue)
return first and (problem and '1 ' .. problem or '1') or '0'
