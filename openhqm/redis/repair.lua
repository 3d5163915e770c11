-- Look after the requests that have not ended, a few at a time: each stands in exactly one of the keys that a queue is
-- made of. One that stands in none (its entry was trimmed, its stream deleted) would never be delivered: it is scheduled
-- from its record, and its number returned.
-- most
local most = tonumber(ARGV[2])
local cursor = redis.call('GET', prefix .. 'repaired') or '0'
local numbers = redis.call('ZRANGEBYSCORE', prefix .. 'open', '(' .. cursor, '+inf', 'LIMIT', 0, most)
local found, delivered = {}, {}

local function last_read(key)
  if not delivered[key] then
    delivered[key] = 0
    local groups = redis.pcall('XINFO', 'GROUPS', key)
    for _, group in ipairs(groups.err and {} or groups) do
      for index = 1, #group, 2 do
        if group[index] == 'last-delivered-id' then delivered[key] = tonumber(group[index + 1]:match('^%d+')) end
      end
    end
  end
  return delivered[key]
end

for _, number in ipairs(numbers) do
  local known = redis.call('HMGET', record(number), 'queue', 'priority', 'body')
  local queue, priority = known[1], known[2]
  if not known[3] then
    redis.call('ZREM', prefix .. 'open', number)
  elseif not (redis.call('ZSCORE', leases(queue), number) or redis.call('ZSCORE', redeliveries(queue, priority), number)
      or redis.call('ZSCORE', delayed(queue, priority), number)) then
    local key, id = stream(queue, priority), number .. '-0'
    local waits = tonumber(number) > last_read(key) and #redis.call('XRANGE', key, id, id) > 0
    if not waits then
      redis.call('ZADD', redeliveries(queue, priority), now, number)
      wake(queue)
      found[#found + 1] = number
    end
  end
end
if #numbers > 0 then
  -- Shared by all processes, so that each goes on where another one was. Its loss costs a round.
  redis.call('SET', prefix .. 'repaired', #numbers < most and '0' or numbers[#numbers])
end
return found
