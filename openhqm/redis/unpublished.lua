-- Requests that have been marked for a while: number, at, attempts that the copy carries, seconds to wait, body. They
-- count as marked now, so that one process has each of them.
-- most, for how long they have to be marked
local most, age = tonumber(ARGV[2]), tonumber(ARGV[3])
local rows = {}
for _, number in ipairs(redis.call('ZRANGEBYSCORE', unpublished, '-inf', exact(clock - age), 'LIMIT', 0, most)) do
  local found = redis.call('HMGET', record(number), 'at', 'carried', 'due', 'body')
  if found[4] then
    redis.call('ZADD', unpublished, now, number)
    redis.call('HDEL', record(number), 'doubted')
    local wait = math.max(0, tonumber(found[3] or '0') - clock)
    rows[#rows + 1] = {number, found[1], found[2] or '0', exact(wait), found[4]}
  else
    redis.call('ZREM', unpublished, number)  -- it has ended
  end
end
return rows
