-- The events numbered above one: at, number of the last one, the reply ('': it has not ended), then each event's text.
-- number, after
local key, after = record(ARGV[2]), tonumber(ARGV[3])
local found = redis.call('HMGET', key, 'at', 'last', 'reply', 'expires')
if not found[1] or (found[4] and tonumber(found[4]) <= clock) then return {} end
local last = tonumber(found[2])
local answer = {found[1], found[2], found[3] or ''}
-- The first event is the acceptance, and an ending is the last: both stand in the record itself.
for number = math.max(after + 1, 2), found[3] and last - 1 or last do
  answer[#answer + 1] = redis.call('HGET', key, 'e' .. number)
end
return answer
