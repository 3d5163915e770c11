-- Claim the request, of those that consist of steps, of which one has begun, ended or is to begin, that has waited longest
-- to be looked at. One process has it; where that one is killed, another one does, after a while.
-- seconds of the claim
-- number, time, at, deadline ('': none), how it has ended ('': it has not), a count that changes where more has happened to
-- it, its steps as JSON; then number, status, attempts of each, and how many bytes of its reply are kept. Nothing where
-- none is to be looked at.
for _ = 1, 100 do
  local number = redis.call('ZRANGEBYSCORE', ripe, '-inf', exact(clock), 'LIMIT', 0, 1)[1]
  if not number then return {} end
  local key = record(number)
  local found = redis.call('HMGET', key, 'at', 'deadline', 'ended', 'ripened', 'plan', 'children')
  if found[1] and found[6] then
    redis.call('ZADD', ripe, exact(clock + tonumber(ARGV[2])), number)
    local answer = {number, now, found[1], found[2] or '', found[3] or '', found[4], found[5]}
    for place = 0, tonumber(found[6]) - 1 do
      local child = redis.call('HMGET', key, 'n' .. place, 's' .. place)
      answer[#answer + 1] = child[1]
      answer[#answer + 1] = child[2]
      answer[#answer + 1] = redis.call('HGET', record(child[1]), 'attempt') or '0'
      answer[#answer + 1] = redis.call('HSTRLEN', key, 'p' .. place)
    end
    return answer
  end
  redis.call('ZREM', ripe, number)  -- its record has expired
end
return {}
