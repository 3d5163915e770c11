-- Look after what is unfinished, a few at a time: each stands in exactly one line. One that stands in none (its entry
-- was trimmed, its stream deleted) would never be lent again: it is put back from its record, and named.
-- most
local most = tonumber(ARGV[2])
local cursor = redis.call('GET', prefix .. 'walked') or '0'
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
  local place = redis.call('HMGET', record(number), 'queue', 'lane', 'body')
  local queue, lane = place[1], place[2]
  if not place[3] then
    redis.call('ZREM', prefix .. 'open', number)
  elseif not (redis.call('ZSCORE', loans(queue), number) or redis.call('ZSCORE', again(queue, lane), number)
      or redis.call('ZSCORE', later(queue, lane), number)) then
    local key, id = stream(queue, lane), number .. '-0'
    local waits = tonumber(number) > last_read(key) and #redis.call('XRANGE', key, id, id) > 0
    if not waits then
      redis.call('ZADD', again(queue, lane), now, number)
      wake(queue)
      found[#found + 1] = number
    end
  end
end
if #numbers > 0 then
  -- Shared by all processes, so that each goes on where another one was. Its loss costs a round.
  redis.call('SET', prefix .. 'walked', #numbers < most and '0' or numbers[#numbers])
end
return found
