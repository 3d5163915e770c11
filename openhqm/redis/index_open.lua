-- Make good what was left out for some of the open requests where no limit asked for it: that they count, and since when
-- they wait.
-- number to go on behind, most, '1': they count, '1': a limit asks which request has waited longest
-- the number to go on behind, '' where these were the last ones
local most, counted, ordered = tonumber(ARGV[3]), ARGV[4] ~= '', ARGV[5] ~= ''
local numbers = redis.call('ZRANGEBYSCORE', prefix .. 'open', '(' .. ARGV[2], '+inf', 'LIMIT', 0, most)
for _, number in ipairs(numbers) do
  local found = redis.call('HMGET', record(number), 'ended', 'size', 'attempt', 'since', 'at', 'queue', 'priority')
  if found[5] and not found[1] then
    if counted and not found[2] then take_room(number, redis.call('HSTRLEN', record(number), 'body')) end
    if ordered and found[3] == '0' and not found[4] then
      local due = redis.call('ZSCORE', delayed(found[6], found[7]), number)
      waits_since(number, due and tonumber(due) > tonumber(found[5]) and due or found[5])
    end
  end
end
return #numbers < most and '' or numbers[#numbers]
