-- How much lies in a queue: ready, delayed, on loan, and when the oldest that was never lent came ('': there is none).
-- queue
local queue = ARGV[2]
local ready, delayed, oldest = 0, 0, ''
for _, lane in ipairs(LANES) do
  local key = stream(queue, lane)
  local read, taken = '0-0', 0
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  for _, group in ipairs(groups.err and {} or groups) do
    for index = 1, #group, 2 do
      if group[index] == 'last-delivered-id' then read = group[index + 1] end
      if group[index] == 'pending' then taken = group[index + 1] end
    end
  end
  ready = ready + redis.call('XLEN', key) - taken
  local first = redis.call('XRANGE', key, string.format('%.0f', tonumber(read:match('^%d+')) + 1), '+', 'COUNT', 1)[1]
  if first and (oldest == '' or tonumber(first[2][2]) < tonumber(oldest)) then oldest = first[2][2] end
  for _, set in ipairs({again(queue, lane), later(queue, lane)}) do
    ready = ready + redis.call('ZCOUNT', set, '-inf', exact(clock))
    delayed = delayed + redis.call('ZCOUNT', set, '(' .. exact(clock), '+inf')
  end
end
return {ready, delayed, redis.call('ZCARD', loans(queue)), oldest}
