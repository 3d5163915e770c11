-- Endings in the log above a number.
-- number, most
-- name ('': the log is not kept), the number of the oldest one, that of the newest, then number, request, status, at,
-- tags and tenant of each
local endings = prefix .. 'log:endings'
local found = redis.call('HMGET', prefix .. 'log', 'name', 'last', 'until')
if not found[3] or tonumber(found[3]) <= clock then return {'', '1', '0'} end
local oldest = redis.call('XRANGE', endings, '-', '+', 'COUNT', 1)[1]
local first = oldest and oldest[1]:match('^%d+') or string.format('%.0f', tonumber(found[2]) + 1)
local answer = {found[1], first, found[2]}
if tonumber(ARGV[2]) >= tonumber(found[2]) then return answer end
local above = string.format('%.0f-0', tonumber(ARGV[2]) + 1)
for _, entry in ipairs(redis.call('XRANGE', endings, above, '+', 'COUNT', ARGV[3])) do
  local fields = entry[2]
  answer[#answer + 1] = entry[1]:match('^%d+')
  for index = 2, 10, 2 do answer[#answer + 1] = fields[index] end
end
return answer
