-- The requests that wait for their first attempt since so many seconds or longer, those that have waited longest first.
-- One whose delay is not over does not wait. Known are those that were accepted, or looked at by index_open.lua, where a
-- limit asks for them.
-- seconds, most
local found = {}
for _, number in ipairs(redis.call('ZRANGEBYSCORE', unbegun, '-inf', exact(clock - tonumber(ARGV[2])), 'LIMIT', 0,
    tonumber(ARGV[3]))) do
  local known = redis.call('HMGET', record(number), 'attempt', 'ended')
  if known[1] == '0' and not known[2] then
    found[#found + 1] = number
  else
    redis.call('ZREM', unbegun, number)  -- a process of an older version has begun it
  end
end
return found
