-- The end of a loan and of the work: reply, ending, event, dead letter and the end of the message, in one step.
-- number, token, status ('': no ending, only an acknowledgement), reply, ttl, dead letters, letter ('': none), the
-- fields of the reply where a stream asks for them
-- '1': so it is, and words behind it where the reply could not be put into its stream. '0': it had ended before, and the
-- reply was dropped. 'lost', 'gone': see loan_state. 'open': it was to be acknowledged as one that has ended, and has
-- not (this Redis may have taken over from one that knew more), so its message must not go; where it is here, it is lent
-- again.
local number, token, status, reply, ttl, letters, letter =
  ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local before = loan_state(number, token)
if before then return before end

local key = record(number)
local found = redis.call('HMGET', key, 'queue', 'lane', 'recorded', 'ended')
local queue, lane, recorded, ended = found[1], found[2], found[3] == '1', found[4]
local first = not ended
local trouble = nil
local forgotten = first and recorded and status == ''
if forgotten and lane == '' then return 'open' end

redis.call('ZREM', loans(queue), number)
if first and letter ~= '' then
  add_letter(letters, letter)
end
if not recorded then
  forget(number, queue, lane)
  redis.call('DEL', key)
else
  if first then
    if forgotten then
      redis.call('ZADD', again(queue, lane), now, number)
    else
      trouble = end_request(number, queue, lane, status, reply, ttl, 9)
    end
  end
  redis.call('HSET', key, 'token', '', 'settled', token .. (first and ' 1' or ' 0'))
end
wake(queue)
return first and (trouble and '1 ' .. trouble or '1') or '0'
