-- What was to be done about a request that consists of steps is done, unless more has happened to it since it was claimed.
-- number, the count that it was claimed with
-- '1', or '0': more has happened.
local number = ARGV[2]
local key = record(number)
local found = redis.call('HMGET', key, 'ripened', 'ended', 'children')
if found[1] and found[1] ~= ARGV[3] then
  redis.call('ZADD', ripe, now, number)
  return '0'
end
redis.call('ZREM', ripe, number)
if found[2] and found[3] then
  for place = 0, tonumber(found[3]) - 1 do redis.call('HDEL', key, 'p' .. place) end
end
return '1'
