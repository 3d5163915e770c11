-- Renew a lease. '1'; 'lost' where another delivery may have the request; an ending's status where the work is in vain.
-- number, token, lease
local number, token, lease = ARGV[2], ARGV[3], tonumber(ARGV[4])
local found = redis.call('HMGET', record(number), 'token', 'queue', 'ended')
if found[1] ~= token then return 'lost' end
-- Removed first: a script that has written may go on while memory is short, and this one must not be refused then.
if redis.call('ZREM', leases(found[2]), number) == 1 then
  redis.call('ZADD', leases(found[2]), exact(clock + lease), number)
end
return found[3] or '1'
