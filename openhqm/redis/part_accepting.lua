-- Limits, tenants and follow-ups, for the scripts that accept.

local coalesce = nil  -- see part_coalescing.lua

-- On whose behalf a request is, where it says so: `tenant_of` in openhqm/codec.py. Its envelope goes when it has ended.
local function note_tenant(number, body)
  local tenant = body:match('^{"openhqm":%d+,"correlation_id":"[^"]*","submitted_at":[^,]+,"tenant":"([a-z0-9-]+)"')
  if tenant then redis.call('HSET', record(number), 'tenant', tenant) end
end

-- A request of that size is taken.
local function take_room(number, size)
  redis.call('HSET', record(number), 'size', size)
  count_load(1, size)
end

-- The load, where a request of that size is beyond the limits ('': none) on requests and bytes; else nil.
local function too_much(size, most_requests, most_bytes)
  if most_requests == '' and most_bytes == '' then return nil end
  local load = redis.call('HMGET', prefix .. 'load', 'requests', 'bytes')
  local requests, bytes = tonumber(load[1] or '0'), tonumber(load[2] or '0')
  local full = most_requests ~= '' and requests >= tonumber(most_requests)
  if full or (most_bytes ~= '' and bytes + size > tonumber(most_bytes)) then return {'full', requests, bytes} end
  return nil
end

-- The follow-ups of a request, held back until it has ended. They are recorded, and stand nowhere else.
-- from `first` on, seven values for each: queue, priority ('': its message goes to a broker), channel, line, timeout
-- ('': none), body, tags ('': none; see log_ending)
local function hold_back(parent, counted, ordered, first)
  local numbers = {}
  for index = first, #ARGV, 7 do
    local number = string.format('%.0f', redis.call('INCR', prefix .. 'number'))
    redis.call('HSET', record(number), 'at', now, 'queue', ARGV[index], 'priority', ARGV[index + 1],
      'channel', ARGV[index + 2], 'line', ARGV[index + 3], 'timeout', ARGV[index + 4], 'body', ARGV[index + 5],
      'attempt', 0, 'last', 1, 'generation', 0, 'told', 1)
    if ARGV[index + 6] ~= '' then redis.call('HSET', record(number), 'tags', ARGV[index + 6]) end
    note_tenant(number, ARGV[index + 5])
    if counted then take_room(number, #ARGV[index + 5]) end
    if ordered then redis.call('HSET', record(number), 'since', '') end  -- it does not wait yet
    redis.call('SADD', prefix .. 'queues', ARGV[index])
    numbers[#numbers + 1] = number
  end
  if #numbers > 0 then redis.call('HSET', record(parent), 'held', table.concat(numbers, ' ')) end
  return numbers
end
