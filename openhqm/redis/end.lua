-- End a request from outside: cancelled, or past its deadline. The first ending wins.
-- number, status, reply, ttl
-- '1', '0' where it had ended before, 'gone' where nothing is left of it.
local number, status, reply, ttl = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local found = redis.call('HMGET', record(number), 'queue', 'lane', 'ended')
local queue, lane = found[1], found[2]
if not queue then
  redis.call('ZREM', prefix .. 'deadlines', number)
  return 'gone'
end
if found[3] then return '0' end
end_request(number, queue, lane, status, reply, ttl)
-- Whoever works on it may stop; what waited behind it may go.
if redis.call('ZSCORE', loans(queue), number) then
  redis.call('PUBLISH', said(queue), 'ended ' .. number .. ' ' .. status)
end
wake(queue)
return '1'
