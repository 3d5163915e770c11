-- The request that was accepted first, of those that wait for their first attempt: its number, or ''. Those with a delay
-- are not looked at. A bounded number of others may lie before it.
local MOST_LOOKS = 1000
local oldest = nil

local function consider(number)
  local found = redis.call('HMGET', record(number), 'attempt', 'ended', 'queue', 'priority')
  if found[1] ~= '0' or found[2] then return false end
  if found[4] ~= '' and redis.call('ZSCORE', delayed(found[3], found[4]), number) then return false end
  if not oldest or tonumber(number) < tonumber(oldest) then oldest = number end
  return true
end

for _, number in ipairs(redis.call('ZRANGE', prefix .. 'open', 0, MOST_LOOKS)) do
  if consider(number) then break end
end
for _, channel in ipairs(redis.call('SMEMBERS', prefix .. 'channels')) do
  for _, number in ipairs(redis.call('ZRANGE', sent(channel), 0, 10)) do
    if consider(number) then break end
  end
end
-- What is claimed is due when the claim runs out, within the minute.
for _, number in ipairs(redis.call('ZRANGEBYSCORE', outbox, '-inf', exact(clock + 60), 'LIMIT', 0, MOST_LOOKS)) do
  if consider(number) then break end
end
return oldest or ''
