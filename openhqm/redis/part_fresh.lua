-- What was never delivered, for the scripts that say how full a queue is.

-- How many of that queue and priority there are, and when the first was accepted ('': there is none).
local function fresh(queue, priority)
  local key = stream(queue, priority)
  local read, pending = '0-0', 0
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  for _, group in ipairs(groups.err and {} or groups) do
    for index = 1, #group, 2 do
      if group[index] == 'last-delivered-id' then read = group[index + 1] end
      if group[index] == 'pending' then pending = group[index + 1] end
    end
  end
  local first = redis.call('XRANGE', key, string.format('%.0f', tonumber(read:match('^%d+')) + 1), '+', 'COUNT', 1)[1]
  return redis.call('XLEN', key) - pending, first and first[2][2] or ''
end
