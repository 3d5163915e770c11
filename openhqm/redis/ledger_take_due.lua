-- Claim outbox entries that are due: number, at, channel, generation, attempts so far, body. One process has each of them.
-- One that was claimed before, and may have been published then, has a new generation.
-- most, seconds of the claim
-- the entries, and in how many seconds the next one falls due ('': none waits)
local most, claim_seconds = tonumber(ARGV[2]), tonumber(ARGV[3])
local rows = {}
for _, number in ipairs(redis.call('ZRANGEBYSCORE', outbox, '-inf', exact(clock), 'LIMIT', 0, most)) do
  local key = record(number)
  local found = redis.call('HMGET', key, 'at', 'channel', 'generation', 'attempt', 'body', 'claimed', 'line')
  if not found[5] then
    redis.call('ZREM', outbox, number)  -- it has ended
  elseif not found[6] and not joins(number, found[7]) then
    redis.call('ZREM', outbox, number)  -- it waits behind another one of its line
  else
    local generation = found[3]
    if found[6] then generation = redis.call('HINCRBY', key, 'generation', 1) end
    redis.call('HSET', key, 'told', 1)
    claim_entry(number, claim_seconds)
    rows[#rows + 1] = {number, found[1], found[2], generation, found[4], found[5]}
  end
end
local next_one = redis.call('ZRANGE', outbox, 0, 0, 'WITHSCORES')
return {rows, next_one[2] and exact(math.max(0, tonumber(next_one[2]) - clock)) or ''}
