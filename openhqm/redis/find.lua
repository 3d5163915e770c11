-- The record of a request: at, the last event that was no progress ('': none), of an ended one the reply and its
-- expiry, and the tenant; where it consists of steps, those as JSON, then number and status of each. Nothing where it has
-- expired.
-- number
local key = record(ARGV[2])
local found = redis.call('HMGET', key, 'at', 'step', 'reply', 'expires', 'tenant', 'plan', 'children')
if not found[1] or (found[4] and tonumber(found[4]) <= clock) then return {} end
local step = found[2] and redis.call('HGET', key, 'e' .. found[2]) or ''
local answer = {found[1], step, found[3] or '', found[4] or '', found[5] or ''}
if found[6] then
  answer[6] = found[6]
  for place = 0, tonumber(found[7]) - 1 do
    for _, name in ipairs({'n', 's'}) do answer[#answer + 1] = redis.call('HGET', key, name .. place) end
  end
end
return answer
