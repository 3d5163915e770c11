-- How much waits in a queue: ready, delayed, delivered, and when the oldest that was never delivered was accepted ('':
-- there is none).
-- queue
local queue = ARGV[2]
local ready, waiting, oldest = 0, 0, ''
for _, priority in ipairs(PRIORITIES) do
  local key = stream(queue, priority)
  local read, pending = '0-0', 0
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  for _, group in ipairs(groups.err and {} or groups) do
    for index = 1, #group, 2 do
      if group[index] == 'last-delivered-id' then read = group[index + 1] end
      if group[index] == 'pending' then pending = group[index + 1] end
    end
  end
  ready = ready + redis.call('XLEN', key) - pending
  local first = redis.call('XRANGE', key, string.format('%.0f', tonumber(read:match('^%d+')) + 1), '+', 'COUNT', 1)[1]
  if first and (oldest == '' or tonumber(first[2][2]) < tonumber(oldest)) then oldest = first[2][2] end
  for _, set in ipairs({redeliveries(queue, priority), delayed(queue, priority)}) do
    ready = ready + redis.call('ZCOUNT', set, '-inf', exact(clock))
    waiting = waiting + redis.call('ZCOUNT', set, '(' .. exact(clock), '+inf')
  end
end
return {ready, waiting, redis.call('ZCARD', leases(queue)), oldest}
