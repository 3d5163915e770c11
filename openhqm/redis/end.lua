-- End a request from outside an attempt: cancelled, or past its deadline. The first ending wins.
-- number, status, reply, ttl, the fields of the reply
-- '1', and the reason behind it where the reply could not be put into its stream; '0' where it had ended before; 'gone'
-- where its record has expired.
local number, status, reply, ttl = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local found = redis.call('HMGET', record(number), 'queue', 'priority', 'ended', 'channel')
local queue, priority = found[1], found[2]
if not queue then
  redis.call('ZREM', prefix .. 'deadlines', number)
  return 'gone'
end
if found[3] then return '0' end
local out = priority == '' and working(found[4]) or leases(queue)
local is_out = redis.call('ZSCORE', out, number)
local problem = end_request(number, queue, priority, status, reply, ttl, 6)
-- The worker may stop; a request that waited behind this one may be delivered.
if is_out then tell(signals(queue), 'ended ' .. number .. ' ' .. status) end
wake(queue)
return problem and '1 ' .. problem or '1'
