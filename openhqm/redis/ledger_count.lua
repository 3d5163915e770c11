-- How many requests of a queue have a message in the broker that was not begun, or stand in line behind another one, and
-- how many wait for their time. Of those in the outbox, and in the line, at most the first thousand are looked at.
-- line, then the channels of the queue ('' for the line: those of the channels)
local name = ARGV[2]
if name ~= '' then
  local ready, waiting = redis.call('ZCARD', line(name)), 0
  for _, number in ipairs(redis.call('ZRANGE', line(name), 0, 999)) do
    local found = redis.call('HMGET', record(number), 'out', 'channel', 'claimed')
    if found[1] then
      local published = found[3] or redis.call('ZSCORE', sent(found[2]), number)
        or redis.call('ZSCORE', crowded(found[2]), number)
      if not published then ready = ready - 1 end
      if not published and redis.call('ZSCORE', outbox, number) then waiting = 1 end
      break
    end
  end
  return {ready, waiting}
end
local channels, published, waiting = {}, 0, 0
for index = 3, #ARGV do
  channels[ARGV[index]] = true
  published = published + redis.call('ZCARD', sent(ARGV[index])) + redis.call('ZCARD', crowded(ARGV[index]))
end
for _, number in ipairs(redis.call('ZRANGE', outbox, 0, 999)) do
  local found = redis.call('HMGET', record(number), 'channel', 'claimed')
  if found[1] and channels[found[1]] then
    if found[2] then published = published + 1 else waiting = waiting + 1 end
  end
end
return {published, waiting}
