-- Start a lease anew. '1'; 'lost' where somebody else may have it; an ending's status where the work is in vain.
-- number, token, lease
local number, token, lease = ARGV[2], ARGV[3], tonumber(ARGV[4])
local found = redis.call('HMGET', record(number), 'token', 'queue', 'ended')
if found[1] ~= token then return 'lost' end
redis.call('ZADD', loans(found[2]), 'XX', exact(clock + lease), number)
return found[3] or '1'
