-- Have endings written down from now on, and drop those that are too old.
-- the name of the log where it begins now, seconds for which it is kept, how many endings it has at most
local name, seconds, most = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local log, endings = prefix .. 'log', prefix .. 'log:endings'

refuse_when_full()
local found = redis.call('HMGET', log, 'until', 'last')
if not found[1] or tonumber(found[1]) <= clock then
  redis.call('DEL', log, endings)
  redis.call('HSET', log, 'name', name, 'last', 0)
  found[2] = '0'
end
redis.call('HSET', log, 'until', exact(clock + seconds), 'most', most)
-- Where no process asks again, both go by themselves.
local milliseconds = string.format('%.0f', (seconds + GRACE_SECONDS) * 1000)
redis.call('PEXPIRE', log, milliseconds)
redis.call('PEXPIRE', endings, milliseconds)

local function at(number)
  local entry = redis.call('XRANGE', endings, number .. '-0', '+', 'COUNT', 1)[1]
  return entry and tonumber(entry[2][6])
end
-- They are in the order of their times, so that the first one that is young enough is found by halving.
local oldest = redis.call('XRANGE', endings, '-', '+', 'COUNT', 1)[1]
local low, high = oldest and tonumber(oldest[1]:match('^%d+')) or 1, tonumber(found[2]) + 1
if oldest and tonumber(oldest[2][6]) <= clock - seconds then
  while low < high do
    local middle = math.floor((low + high) / 2)
    local found_at = at(string.format('%.0f', middle))
    if found_at and found_at <= clock - seconds then low = middle + 1 else high = middle end
  end
  redis.call('XTRIM', endings, 'MINID', string.format('%.0f-0', low))
end
return 1
