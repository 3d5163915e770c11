-- Take back a request that could not be published, with its claim. '0' where somebody knows of it already.
-- number, claim ('': none)
local number, claim = ARGV[2], ARGV[3]
local key = record(number)
local found = redis.call('HMGET', key, 'told', 'ended')
if found[1] or found[2] or not redis.call('ZSCORE', unpublished, number) then return '0' end
redis.call('DEL', key)
redis.call('ZREM', unpublished, number)
redis.call('ZREM', prefix .. 'elsewhere', number)
redis.call('ZREM', prefix .. 'deadlines', number)
local claimed = prefix .. 'c:' .. claim
if claim ~= '' and redis.call('HGET', claimed, 'number') == number then redis.call('DEL', claimed) end
return '1'
