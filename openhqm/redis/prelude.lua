-- What every script begins with. KEYS[1] is the prefix of all our keys. KEYS[2] exists for as long as Redis has forgotten
-- nothing since this process connected first (absent: there was nothing to forget). ARGV[1] is the time.
--
-- Scripts write their effects, not themselves, into the append-only file (so TIME may be asked before a write);
-- Redis 7 always does that, Redis 6 has to be told.
if redis.replicate_commands then redis.replicate_commands() end

local prefix = KEYS[1]

-- Data that are deleted close no connection, and another process may have started from nothing in the meantime.
if KEYS[2] and redis.call('TOUCH', KEYS[2]) == 0 then return redis.error_reply('FORGOTTEN') end

-- The time is that of the Redis server, so hosts whose clocks differ agree; a test passes its own.
-- It stays a string where it is kept: a number made into a string by Lua loses digits.
local now = ARGV[1]
if now == '' then
  local time = redis.call('TIME')
  now = string.format('%s.%06d', time[1], tonumber(time[2]))
end
local clock = tonumber(now)

local GROUP, READER = 'openhqm', 'workers'
local PRIORITIES = {'high', 'normal', 'low'}
local GRACE_SECONDS = 5

local function exact(number) return string.format('%.17g', number) end
local function record(number) return prefix .. 'r:' .. number end
local function part(queue, what) return prefix .. 'q:' .. queue .. ':' .. what end
local function stream(queue, priority) return part(queue, 'ready:' .. priority) end
local function redeliveries(queue, priority) return part(queue, 'redeliveries:' .. priority) end
local function delayed(queue, priority) return part(queue, 'delayed:' .. priority) end
local function leases(queue) return part(queue, 'leases') end
-- Of requests whose messages go to a broker (ledger_*.lua): what is to be published, by when it is due; what was
-- published and not begun; what is being worked on; and those that are worked on one at a time, in order.
local outbox = prefix .. 'outbox'
local function sent(channel) return prefix .. 'sent:' .. channel end
local function working(channel) return prefix .. 'working:' .. channel end
local function line(name) return prefix .. 'line:' .. name end
local function signals(queue) return prefix .. 'signals:' .. queue end

-- Fails where Redis is full, cannot save or is a replica, before anything of this script has happened: it writes
-- nothing, but it is a command that may grow. Scripts that end a request do without, so that a delivery can be settled
-- while memory is short.
local function refuse_when_full() redis.call('SETRANGE', prefix .. 'full', 0, '') end

-- Publish a message to the processes. A user without the right to must not keep a script from what it has begun:
-- nothing is undone, and a process that is not told finds out by looking.
local function tell(channel, message) redis.pcall('PUBLISH', channel, message) end

-- Tell the processes that found nothing in the queue that it is worth looking again. Where none did, none is told.
local function wake(queue)
  if redis.call('DEL', part(queue, 'waiting')) == 1 then tell(signals(queue), 'ready') end
end

-- Add an event to a request's history and tell its listeners: they are told its number, and read the rest.
local function add_event(number, type, detail)
  local key = record(number)
  local count = redis.call('HINCRBY', key, 'last', 1)
  redis.call('HSET', key, 'e' .. count, type .. ' ' .. now .. ' ' .. detail)
  if type ~= 'progress' then redis.call('HSET', key, 'step', count) end
  tell(prefix .. 'e:' .. number, count)
end

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

-- A new message counts from now on, and is due at a time.
local function publish_again(number, body, due)
  local key = record(number)
  local channel = redis.call('HGET', key, 'channel')
  redis.call('HINCRBY', key, 'generation', 1)
  redis.call('HSET', key, 'body', body, 'told', 1)
  redis.call('HDEL', key, 'claimed')
  redis.call('ZREM', sent(channel), number)
  redis.call('ZREM', working(channel), number)
  redis.call('ZADD', outbox, due, number)
end

-- The request has ended, or is taken back: nothing of it is published, and the next of its line may be.
local function leave_broker(number)
  local found = redis.call('HMGET', record(number), 'channel', 'line', 'out')
  redis.call('ZREM', outbox, number)
  redis.call('ZREM', sent(found[1]), number)
  redis.call('ZREM', working(found[1]), number)
  if found[2] == '' then return end
  redis.call('ZREM', line(found[2]), number)
  if not found[3] then return end
  local next_one = redis.call('ZRANGE', line(found[2]), 0, 0)[1]
  if next_one then
    redis.call('HSET', record(next_one), 'out', 1)
    redis.call('ZADD', outbox, now, next_one)
    tell(signals('outbox'), 'due')
  end
end

-- Nothing is left to be done: remove the request from every key that it may stand in. Its entry's id in the stream is
-- its number.
local function forget(number, queue, priority)
  redis.call('ZREM', prefix .. 'deadlines', number)
  if priority == '' then return leave_broker(number) end
  local id = number .. '-0'
  redis.pcall('XACK', stream(queue, priority), GROUP, id)
  redis.pcall('XDEL', stream(queue, priority), id)
  redis.call('ZREM', redeliveries(queue, priority), number)
  redis.call('ZREM', delayed(queue, priority), number)
  redis.call('ZREM', prefix .. 'open', number)
end

-- How much has not ended, in requests and in bytes. Only what was accepted under limits is counted, and has a `size`: where
-- nothing is limited nothing is counted, and costs nothing.
local function count_load(requests, bytes)
  redis.call('HINCRBY', prefix .. 'load', 'requests', requests)
  redis.call('HINCRBY', prefix .. 'load', 'bytes', bytes)
end

-- A request of that size is taken.
local function take_room(number, size)
  redis.call('HSET', record(number), 'size', size)
  count_load(1, size)
end

-- The load, where a request of that size is beyond the limits ('': none) on requests and bytes; else nil.
local function too_much(size, most_requests, most_bytes)
  if most_requests == '' and most_bytes == '' then return nil end
  local load = redis.call('HMGET', prefix .. 'load', 'requests', 'bytes')
  local requests, bytes = tonumber(load[1] or '0'), tonumber(load[2] or '0')
  local full = most_requests ~= '' and requests >= tonumber(most_requests)
  if full or (most_bytes ~= '' and bytes + size > tonumber(most_bytes)) then return {'full', requests, bytes} end
  return nil
end

-- The follow-ups of a request, held back until it has ended. They are recorded, and stand nowhere else.
-- from `first` on, six values for each: queue, priority ('': its message goes to a broker), channel, line, timeout ('':
-- none), body
local function hold_back(parent, counted, first)
  local numbers = {}
  for index = first, #ARGV, 6 do
    local number = string.format('%.0f', redis.call('INCR', prefix .. 'number'))
    redis.call('HSET', record(number), 'at', now, 'queue', ARGV[index], 'priority', ARGV[index + 1],
      'channel', ARGV[index + 2], 'line', ARGV[index + 3], 'timeout', ARGV[index + 4], 'body', ARGV[index + 5],
      'attempt', 0, 'last', 1, 'generation', 0, 'told', 1)
    if counted then take_room(number, #ARGV[index + 5]) end
    redis.call('SADD', prefix .. 'queues', ARGV[index])
    numbers[#numbers + 1] = number
  end
  if #numbers > 0 then redis.call('HSET', record(parent), 'held', table.concat(numbers, ' ')) end
  return numbers
end

-- The parent of a follow-up has ended: it is a request of this time, with the parent's reply in its envelope.
local function let_go(number, reply)
  local key = record(number)
  local found = redis.call('HMGET', key, 'body', 'queue', 'priority', 'timeout', 'size')
  if not found[1] then return end  -- it was cancelled while it was held back
  local body = found[1]:sub(1, -2) .. ',"parent_reply":' .. reply .. '}'
  redis.call('HSET', key, 'at', now, 'body', body)
  if found[5] then
    redis.call('HSET', key, 'size', #body)
    count_load(0, #body - tonumber(found[5]))
  end
  if found[4] ~= '' then redis.call('ZADD', prefix .. 'deadlines', exact(clock + tonumber(found[4])), number) end
  if found[3] == '' then
    redis.call('ZADD', outbox, now, number)
    tell(signals('outbox'), 'due')
  else
    redis.call('ZADD', delayed(found[2], found[3]), now, number)
    redis.call('ZADD', prefix .. 'open', number, number)
    wake(found[2])
  end
end

local function add_letter(letters, letter)
  redis.call('XADD', letters, string.format('%.0f-0', redis.call('INCR', letters .. ':last')), 'at', now, 'letter', letter)
end

-- Put a reply into the stream where it was asked for: its fields stand in ARGV from `first` on. The stream belongs to
-- another program. What is wrong with it (it is no stream, it must not be written) is returned: no step fails over it.
local function add_reply(reply_to, about, first)
  local added = redis.pcall('XADD', reply_to, '*', 'in_reply_to', about, unpack(ARGV, first))
  return type(added) == 'table' and added.err or nil
end

-- The one ending. The caller has looked that there is none. What is wrong with the reply's stream is returned.
local function end_request(number, queue, priority, status, reply, ttl, first)
  local key = record(number)
  forget(number, queue, priority)
  local count = redis.call('HINCRBY', key, 'last', 1)
  redis.call('HSET', key, 'ended', status, 'reply', reply, 'expires', exact(clock + tonumber(ttl)))
  redis.call('HDEL', key, 'body')
  redis.call('PEXPIRE', key, string.format('%.0f', (tonumber(ttl) + GRACE_SECONDS) * 1000))
  tell(prefix .. 'e:' .. number, count)
  local asked = redis.call('HMGET', key, 'reply_to', 'about', 'held', 'size')
  if asked[4] then count_load(-1, -tonumber(asked[4])) end
  if asked[3] then
    for follow_up in asked[3]:gmatch('%d+') do let_go(follow_up, reply) end
  end
  return asked[1] and add_reply(asked[1], asked[2], first)
end

-- Whether a delivery may still be settled: nil where it is open; otherwise what became of it. 'lost': the request
-- belongs to another delivery. 'gone': the record has expired.
-- A step that was done and whose answer got lost is recognised by its token, and finds its own outcome.
local function delivery_state(number, token)
  local found = redis.call('HMGET', record(number), 'token', 'settled', 'queue')
  if not found[3] then return 'gone' end
  if found[2] and found[2]:sub(1, #token + 1) == token .. ' ' then return found[2]:sub(#token + 2) end
  if found[1] ~= token then return 'lost' end
  return nil
end
