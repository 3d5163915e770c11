-- How much waits in a queue: ready, delayed, delivered, and when the oldest that was never delivered was accepted ('':
-- there is none).
-- queue
local queue = ARGV[2]
local ready, waiting, oldest = 0, 0, ''
for _, priority in ipairs(PRIORITIES) do
  local count, first = fresh(queue, priority)
  ready = ready + count
  if first ~= '' and (oldest == '' or tonumber(first) < tonumber(oldest)) then oldest = first end
  for _, set in ipairs({redeliveries(queue, priority), delayed(queue, priority)}) do
    ready = ready + redis.call('ZCOUNT', set, '-inf', exact(clock))
    waiting = waiting + redis.call('ZCOUNT', set, '(' .. exact(clock), '+inf')
  end
end
return {ready, waiting, redis.call('ZCARD', leases(queue)), oldest}
