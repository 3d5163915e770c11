-- Claim outbox entries that are due, and those that there is room for by now: number, at, channel, generation, attempts so
-- far, body. One process has each of them. One that was claimed before, and may have been published then, has a new
-- generation.
-- most, seconds of the claim, the window of a channel ('': none)
-- the entries, and in how many seconds the next one falls due ('': none waits)
local most, claim_seconds, window = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local rows = {}

local function take(number, found)
  local generation = found[3]
  if found[6] then generation = redis.call('HINCRBY', record(number), 'generation', 1) end
  redis.call('HSET', record(number), 'told', 1)
  claim_entry(number, claim_seconds, window)
  rows[#rows + 1] = {number, found[1], found[2], generation, found[4], found[5]}
end

local function look_at(number)
  return redis.call('HMGET', record(number), 'at', 'channel', 'generation', 'attempt', 'body', 'claimed', 'line')
end

for _, channel in ipairs(redis.call('SMEMBERS', prefix .. 'crowded')) do
  local room = most - #rows
  if window ~= '' then room = math.min(room, free_room(channel, window)) end
  if room > 0 then
    for _, number in ipairs(redis.call('ZRANGE', crowded(channel), 0, room - 1)) do
      redis.call('ZREM', crowded(channel), number)
      local found = look_at(number)
      if found[5] then take(number, found) end
    end
    if redis.call('EXISTS', crowded(channel)) == 0 then redis.call('SREM', prefix .. 'crowded', channel) end
  end
end
for _, number in ipairs(redis.call('ZRANGEBYSCORE', outbox, '-inf', exact(clock), 'LIMIT', 0, most - #rows)) do
  local found = look_at(number)
  if not found[5] then
    redis.call('ZREM', outbox, number)  -- it has ended
  elseif not found[6] and not joins(number, found[7]) then
    redis.call('ZREM', outbox, number)  -- it waits behind another one of its line
  elseif found[6] or not is_crowded_out(number, found[2], redis.call('ZSCORE', outbox, number), window) then
    take(number, found)
  end
end
local next_one = redis.call('ZRANGE', outbox, 0, 0, 'WITHSCORES')
return {rows, next_one[2] and exact(math.max(0, tonumber(next_one[2]) - clock)) or ''}
