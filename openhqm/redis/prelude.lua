-- What every script begins with. KEYS[1] is the prefix of all our keys, KEYS[2] is there as long as nothing was
-- forgotten since this process connected first (none: there is nothing that could have been), ARGV[1] the time.
--
-- Scripts write what happened, not themselves, into the append-only file (so TIME may be asked before a write);
-- Redis 7 always does that, Redis 6 has to be told.
if redis.replicate_commands then redis.replicate_commands() end

local prefix = KEYS[1]

-- Data that are deleted close no connection, and another process may have begun anew meanwhile.
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
local LANES = {'high', 'normal', 'low'}
local GRACE_SECONDS = 5

local function exact(number) return string.format('%.17g', number) end
local function record(number) return prefix .. 'r:' .. number end
local function part(queue, what) return prefix .. 'q:' .. queue .. ':' .. what end
local function stream(queue, lane) return part(queue, 'ready:' .. lane) end
local function again(queue, lane) return part(queue, 'again:' .. lane) end
local function later(queue, lane) return part(queue, 'later:' .. lane) end
local function loans(queue) return part(queue, 'loans') end
local unpublished = prefix .. 'unpublished'
local function said(queue) return prefix .. 'said:' .. queue end

-- Fails where Redis is full, cannot save or is a replica, before anything of this script has happened: it writes
-- nothing, but it is a command that may grow. Scripts that end a request do without, so that what is on loan can
-- be finished while memory is short.
local function refuse_when_full() redis.call('SETRANGE', prefix .. 'full', 0, '') end

-- Tell whoever listens. That it may be forbidden must not keep a script from what it has begun: nothing is undone, and
-- who was not told finds out by looking.
local function tell(channel, words) redis.pcall('PUBLISH', channel, words) end

-- Tell whoever found nothing in the queue that it is worth looking again. Nobody did: nothing is published.
local function wake(queue)
  if redis.call('DEL', part(queue, 'hungry')) == 1 then tell(said(queue), 'ready') end
end

-- Add an event to a request's history and tell who listens to it: they are told its number, and read the rest.
local function add_event(number, type, detail)
  local key = record(number)
  local count = redis.call('HINCRBY', key, 'last', 1)
  redis.call('HSET', key, 'e' .. count, type .. ' ' .. now .. ' ' .. detail)
  if type ~= 'progress' then redis.call('HSET', key, 'step', count) end
  tell(prefix .. 'e:' .. number, count)
end

-- Nothing is left to be done: out of every line it may stand in. Its entry's id in the stream is its number.
local function forget(number, queue, lane)
  local id = number .. '-0'
  redis.pcall('XACK', stream(queue, lane), GROUP, id)
  redis.pcall('XDEL', stream(queue, lane), id)
  redis.call('ZREM', again(queue, lane), number)
  redis.call('ZREM', later(queue, lane), number)
  redis.call('ZREM', prefix .. 'open', number)
  redis.call('ZREM', prefix .. 'elsewhere', number)
  redis.call('ZREM', prefix .. 'deadlines', number)
end

local function add_letter(letters, letter)
  redis.call('XADD', letters, string.format('%.0f-0', redis.call('INCR', letters .. ':last')), 'at', now, 'letter', letter)
end

-- Put a reply where it was asked for: its fields stand in ARGV from `first` on. The stream is somebody else's, and what
-- is wrong with it (it is no stream, it must not be written) is returned in words: nothing of ours fails over it.
local function answer(reply_to, about, first)
  local said = redis.pcall('XADD', reply_to, '*', 'in_reply_to', about, unpack(ARGV, first))
  return type(said) == 'table' and said.err or nil
end

-- The one ending. Whoever calls has looked that there is none. What is wrong with the reply's stream is returned.
local function end_request(number, queue, lane, status, reply, ttl, first)
  local key = record(number)
  forget(number, queue, lane)
  local count = redis.call('HINCRBY', key, 'last', 1)
  redis.call('HSET', key, 'ended', status, 'reply', reply, 'expires', exact(clock + tonumber(ttl)))
  redis.call('HDEL', key, 'body')
  redis.call('PEXPIRE', key, string.format('%.0f', (tonumber(ttl) + GRACE_SECONDS) * 1000))
  tell(prefix .. 'e:' .. number, count)
  local asked = redis.call('HMGET', key, 'reply_to', 'about')
  return asked[1] and answer(asked[1], asked[2], first)
end

-- What a holder may still do with its loan: nil where it is its own and open; otherwise what became of it.
-- A step that was done and whose answer got lost is recognised by its token, and finds its own outcome.
local function loan_state(number, token)
  local found = redis.call('HMGET', record(number), 'token', 'settled', 'queue')
  if not found[3] then return 'gone' end
  if found[2] and found[2]:sub(1, #token + 1) == token .. ' ' then return found[2]:sub(#token + 2) end
  if found[1] ~= token then return 'lost' end
  return nil
end
