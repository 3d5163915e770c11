-- The end of a delivery: reply, ending, event and dead letter, in one step.
-- number, token, status ('': no ending, only an acknowledgement), reply, ttl, dead letters, letter ('': none)
-- '1'; '0': it had ended before, and the reply was dropped. 'lost', 'gone': see delivery_state. 'open': it was to be
-- acknowledged as one that has ended, and has not (this Redis may have taken over from one that knew more).
local number, token, status, reply, ttl, letters, letter = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local before = delivery_state(number, token)
if before then return before end
local key = record(number)
local first = not redis.call('HGET', key, 'ended')
if first and status == '' then return 'open' end
if first then
  end_request(number, redis.call('HGET', key, 'queue'), '', status, reply, ttl, 9)
  -- Behind the first write, which takes no memory: while Redis is full a script goes on that has written.
  if letter ~= '' then add_letter(letters, letter, number) end
end
redis.call('HSET', key, 'token', '', 'settled', token .. (first and ' 1' or ' 0'))
return first and '1' or '0'
