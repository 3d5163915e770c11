-- End a request from outside: cancelled, or past its deadline. The first ending wins.
-- number, status, reply, ttl, the fields of the reply
-- '1', and words behind it where the reply could not be put into its stream; '0' where it had ended before, 'gone' where nothing is left of it.
local number, status, reply, ttl = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local found = redis.call('HMGET', record(number), 'queue', 'lane', 'ended')
local queue, lane = found[1], found[2]
if not queue then
  redis.call('ZREM', prefix .. 'deadlines', number)
  return 'gone'
end
if found[3] then return '0' end
local trouble = end_request(number, queue, lane, status, reply, ttl, 6)
-- Whoever works on it may stop; what waited behind it may go.
if redis.call('ZSCORE', loans(queue), number) then
  tell(said(queue), 'ended ' .. number .. ' ' .. status)
  if lane == '' then redis.call('ZREM', loans(queue), number) end  -- the broker knows what is on loan
end
wake(queue)
return trouble and '1 ' .. trouble or '1'
