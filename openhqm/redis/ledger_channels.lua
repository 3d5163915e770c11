-- Channels with messages that were published and not begun: each, and since when its oldest message waits.
local rows = {}
for _, channel in ipairs(redis.call('SMEMBERS', prefix .. 'channels')) do
  local oldest = redis.call('ZRANGE', sent(channel), 0, 0, 'WITHSCORES')
  if oldest[2] then
    rows[#rows + 1] = {channel, oldest[2]}
  end
end
return rows
