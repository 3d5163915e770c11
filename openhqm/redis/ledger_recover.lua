-- Some of the requests whose messages a broker has lost with a channel. What has its message here is due at once, the rest
-- is told, to be ended. Only for the process whose turn it is.
-- token of the turn, channel, most, begun ('1': what was being worked on is lost, too), first ('1': the first portion)
-- 'over' where it is not this process's turn any more; else how many are published again, and the numbers of the rest
local token, channel, most, begun, first = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6] == '1'
if redis.call('GET', prefix .. 'recovering') ~= token then return 'over' end
-- A channel that is made for the first time has lost nothing: what is being published into it now is not in doubt.
if first and redis.call('HSETNX', prefix .. 'epochs', channel, 0) == 0 then
  redis.call('HINCRBY', prefix .. 'epochs', channel, 1)
end
redis.call('DEL', stale(channel))
local lost = redis.call('ZRANGE', sent(channel), 0, most - 1)
if #lost == 0 and begun then lost = redis.call('ZRANGE', working(channel), 0, most - 1) end
local published, rest = 0, {}
for _, number in ipairs(lost) do
  local found = redis.call('HMGET', record(number), 'channel', 'ended', 'body')
  if not found[1] or found[2] then
    redis.call('ZREM', sent(channel), number)
    redis.call('ZREM', working(channel), number)
  elseif found[3] then
    publish_again(number, found[3], now)
    published = published + 1
  else
    rest[#rest + 1] = number
  end
end
return {published, rest, #lost}
