-- The next events numbered above one: at, number of the last one, the reply ('': it has not ended, or more events come
-- before its end), then each event's text.
-- number, after, most events, bytes after which no further event is added
local key, after = record(ARGV[2]), tonumber(ARGV[3])
local most, left = tonumber(ARGV[4]), tonumber(ARGV[5])
local found = redis.call('HMGET', key, 'at', 'last', 'expires')
if not found[1] or (found[3] and tonumber(found[3]) <= clock) then return {} end
local last, ended = tonumber(found[2]), redis.call('HEXISTS', key, 'reply') == 1
local answer = {found[1], found[2], ''}
-- The first event is the acceptance, and an ending is the last: both stand in the record itself.
local until_number = ended and last - 1 or last
if after < 1 then most = most - 1 end
for number = math.max(after + 1, 2), until_number do
  if most == 0 or left <= 0 then return answer end
  local text = redis.call('HGET', key, 'e' .. number)
  answer[#answer + 1] = text
  most = most - 1
  left = left - (text and #text or 0)
end
if ended and last > after then answer[3] = redis.call('HGET', key, 'reply') end
return answer
