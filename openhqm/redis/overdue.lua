-- The requests that are past their deadline and have not ended, with their attempts; in how many seconds the next
-- deadline passes; and the time.
-- most
local due = redis.call('ZRANGEBYSCORE', prefix .. 'deadlines', '-inf', exact(clock), 'LIMIT', 0, tonumber(ARGV[2]))
local found = {}
for _, number in ipairs(due) do
  found[#found + 1] = {number, redis.call('HGET', record(number), 'attempt') or '0'}
end
local first = redis.call('ZRANGEBYSCORE', prefix .. 'deadlines', '(' .. exact(clock), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return {found, first[2] and exact(tonumber(first[2]) - clock) or '', now}
