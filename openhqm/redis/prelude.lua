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
-- published and not begun; what is being worked on; and those that are worked on one at a time, in order. Where a channel
-- may have no more than a number of messages, its window: what is being published into it, what waits for room in it, by
-- when it was due, and what has ended and was not passed over yet, by when it was published.
local outbox = prefix .. 'outbox'
local function claimed_in(channel) return prefix .. 'claimed:' .. channel end
local function stale(channel) return prefix .. 'stale:' .. channel end
local function crowded(channel) return prefix .. 'crowded:' .. channel end
local function sent(channel) return prefix .. 'sent:' .. channel end
local function working(channel) return prefix .. 'working:' .. channel end
local function line(name) return prefix .. 'line:' .. name end
local ripe = prefix .. 'ripe'  -- requests that consist of steps, by when to look at what follows from those
local unbegun = prefix .. 'unbegun'  -- by since when they wait for their first attempt, where a limit asks for it
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
local function add_to_history(number, type, detail)
  local key = record(number)
  local count = redis.call('HINCRBY', key, 'last', 1)
  redis.call('HSET', key, 'e' .. count, type .. ' ' .. now .. ' ' .. detail)
  if type ~= 'progress' then redis.call('HSET', key, 'step', count) end
  tell(prefix .. 'e:' .. number, count)
end

-- Something has happened to a step of a request, which is an event of the request, too, unless that has ended. Returns
-- whether it has not.
local function add_to_parent(parent, place, named, status, type, detail)
  local found = redis.call('HMGET', record(parent), 'at', 'ended')
  if not found[1] then return false end  -- its record has expired
  redis.call('HSET', record(parent), 's' .. place, status)
  if found[2] then return false end
  add_to_history(parent, type, named .. ',' .. detail:sub(2))
  return true
end

-- An attempt begins, or is to be repeated. parent: of which request it is a step, or false.
local function add_event(number, type, detail, parent)
  add_to_history(number, type, detail)
  if not parent then return end
  local found = redis.call('HMGET', record(number), 'place', 'named')
  add_to_parent(parent, found[1], found[2], 'PROCESSING', type, detail)
end

-- The request waits for its first attempt since a time, where a limit asks for it; `since` tells so of what is released.
local function waits_since(number, since)
  redis.call('HSET', record(number), 'since', since)
  redis.call('ZADD', unbegun, since, number)
end

-- How much has not ended, in requests and in bytes. Only what was accepted under limits is counted, and has a `size`: where
-- nothing is limited nothing is counted, and costs nothing.
local function count_load(requests, bytes)
  redis.call('HINCRBY', prefix .. 'load', 'requests', requests)
  redis.call('HINCRBY', prefix .. 'load', 'bytes', bytes)
end
