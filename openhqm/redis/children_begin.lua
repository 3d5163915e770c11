-- Steps of a request begin that were held back: what they were accepted as, with what the stage before has resulted in.
-- number, what stands behind their envelopes (JSON without its beginning and its end), from which place to which the stage
-- before stands ('': there is none), then for each step: its place, its timeout ('': none)
refuse_when_full()
local number, more = ARGV[2], ARGV[3]
local key = record(number)
local found = redis.call('HMGET', key, 'at', 'ended')
if not found[1] or found[2] then return 0 end
for index = 6, #ARGV, 2 do
  local place, timeout = ARGV[index], ARGV[index + 1]
  if redis.call('HGET', key, 's' .. place) == 'HELD' then
    redis.call('HSET', key, 's' .. place, 'PENDING')
    local own = timeout ~= '' and ',"timeout":' .. timeout or ''
    let_go(redis.call('HGET', key, 'n' .. place), own .. more, timeout)
  end
end
if ARGV[4] ~= '' then
  for place = tonumber(ARGV[4]), tonumber(ARGV[5]) do redis.call('HDEL', key, 'p' .. place) end
end
return 1
