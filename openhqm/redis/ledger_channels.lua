-- Channels with messages that were published and not begun: each, and since when its oldest message waits.
local rows = {}
for _, channel in ipairs(redis.call('SMEMBERS', prefix .. 'channels')) do
  local oldest = redis.call('ZRANGE', sent(channel), 0, 0, 'WITHSCORES')[2]
  local ended = redis.call('ZRANGE', stale(channel), 0, 0, 'WITHSCORES')[2]
  if oldest or ended then
    rows[#rows + 1] = {channel, math.min(tonumber(oldest or ended), tonumber(ended or oldest))}
  end
end
return rows
