-- How many requests of a queue have a message in the broker that was not begun, and how many wait in the outbox: for their
-- time, or in line behind another one. Of those in the outbox at most the first thousand are looked at.
-- line, then the channels of the queue ('' for the line: those of the channels)
local name = ARGV[2]
if name ~= '' then
  local count = redis.call('ZCARD', line(name))
  return {math.min(count, 1), math.max(count - 1, 0)}
end
local channels, published, waiting = {}, 0, 0
for index = 3, #ARGV do
  channels[ARGV[index]] = true
  published = published + redis.call('ZCARD', sent(ARGV[index]))
end
for _, number in ipairs(redis.call('ZRANGE', outbox, 0, 999)) do
  local found = redis.call('HMGET', record(number), 'channel', 'claimed')
  if found[1] and channels[found[1]] then
    if found[2] then published = published + 1 else waiting = waiting + 1 end
  end
end
return {published, waiting}
