-- End a request that waits for its first attempt. '1', and the reason behind it where the reply could not be put into its
-- stream; '0' where it has begun or ended.
-- number, status, reply, ttl, the fields of the reply
local number, status, reply, ttl = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local found = redis.call('HMGET', record(number), 'queue', 'priority', 'ended', 'attempt')
if not found[1] or found[3] or found[4] ~= '0' then return '0' end
local problem = end_request(number, found[1], found[2], status, reply, ttl, 6)
wake(found[1])
return problem and '1 ' .. problem or '1'
