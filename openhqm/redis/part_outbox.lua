-- The outbox, for requests whose messages go to a broker.

-- How often the messages of a channel were lost.
local function epoch(channel) return redis.call('HGET', prefix .. 'epochs', channel) or '0' end

-- How many more messages the channel takes. What has ended an hour after it was published, and was not passed over, is
-- taken to be lost.
local function free_room(channel, window)
  redis.call('ZREMRANGEBYSCORE', stale(channel), '-inf', exact(clock - 3600))
  return tonumber(window) - redis.call('ZCARD', sent(channel)) - redis.call('SCARD', claimed_in(channel))
    - redis.call('ZCARD', stale(channel))
end

-- Whether the entry, due since then, has to wait for room in its channel: behind those that do so already. window '': no.
local function is_crowded_out(number, channel, due, window)
  if window == '' or (redis.call('EXISTS', crowded(channel)) == 0 and free_room(channel, window) > 0) then
    return false
  end
  redis.call('ZREM', outbox, number)
  redis.call('ZADD', crowded(channel), due, number)
  redis.call('HSET', record(number), 'windowed', 1)
  redis.call('SADD', prefix .. 'crowded', channel)
  return true
end

-- This process publishes the entry now; where it does not, another one does after a while.
local function claim_entry(number, seconds, window)
  local channel = redis.call('HGET', record(number), 'channel')
  if window ~= '' then
    redis.call('SADD', claimed_in(channel), number)
    redis.call('HSET', record(number), 'windowed', 1)
  end
  redis.call('HSET', record(number), 'claimed', epoch(channel))
  redis.call('ZADD', outbox, exact(clock + seconds), number)
  redis.call('SADD', prefix .. 'channels', channel)
end

-- Whether a request may have a message in the broker now; where another one of its line has, it waits behind it.
local function joins(number, name)
  if name == '' or redis.call('ZSCORE', line(name), number) then return true end
  local free = redis.call('EXISTS', line(name)) == 0
  redis.call('ZADD', line(name), number, number)
  if free then redis.call('HSET', record(number), 'out', 1) end
  return free
end
