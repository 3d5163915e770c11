-- The outbox, for requests whose messages go to a broker.

-- How often the messages of a channel were lost.
local function epoch(channel) return redis.call('HGET', prefix .. 'epochs', channel) or '0' end

-- This process publishes the entry now; where it does not, another one does after a while.
local function claim_entry(number, seconds)
  local channel = redis.call('HGET', record(number), 'channel')
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
