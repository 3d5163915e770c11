-- Counts what a process has let its callers take of limits that all processes keep together. Returns how many processes
-- there are, and for each limit the seconds until what was taken will have been paid for.
-- process, the seconds after which one that says nothing counts no more, then of each limit: name, seconds of it
local processes = prefix .. 'limits'
redis.call('ZADD', processes, exact(clock), ARGV[2])
redis.call('ZREMRANGEBYSCORE', processes, '-inf', exact(clock - tonumber(ARGV[3])))
redis.call('PEXPIRE', processes, math.ceil(tonumber(ARGV[3]) * 1000))
local found = {redis.call('ZCARD', processes)}
for index = 4, #ARGV, 2 do
  local key = prefix .. 'limit:' .. ARGV[index]
  local owed = math.max(0, tonumber(redis.call('GET', key) or '0') - clock) + tonumber(ARGV[index + 1])
  if owed > 0 then redis.call('SET', key, exact(clock + owed), 'PX', math.ceil(owed * 1000)) end
  found[#found + 1] = exact(owed)
end
return found
