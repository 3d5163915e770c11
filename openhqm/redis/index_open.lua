-- Note since when some of the requests wait that were accepted where no limit asked for it.
-- number to go on behind, most
-- the number to go on behind, '' where these were the last ones
local numbers = redis.call('ZRANGEBYSCORE', prefix .. 'open', '(' .. ARGV[2], '+inf', 'LIMIT', 0, tonumber(ARGV[3]))
for _, number in ipairs(numbers) do
  local found = redis.call('HMGET', record(number), 'attempt', 'since', 'at', 'queue', 'priority', 'ended')
  if found[1] == '0' and not found[2] and not found[6] then
    local due = redis.call('ZSCORE', delayed(found[4], found[5]), number)
    waits_since(number, due and tonumber(due) > tonumber(found[3]) and due or found[3])
  end
end
return #numbers < tonumber(ARGV[3]) and '' or numbers[#numbers]
