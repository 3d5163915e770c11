-- How a request ends, and what follows from it.

-- A new message counts from now on, and is due at a time.
local function publish_again(number, body, due)
  local key = record(number)
  local channel = redis.call('HGET', key, 'channel')
  redis.call('HINCRBY', key, 'generation', 1)
  redis.call('HSET', key, 'body', body, 'told', 1)
  redis.call('HDEL', key, 'claimed')
  redis.call('ZREM', sent(channel), number)
  redis.call('SREM', claimed_in(channel), number)
  redis.call('ZREM', working(channel), number)
  redis.call('ZADD', outbox, due, number)
end

-- The request has ended, or is taken back: nothing of it is published, and the next of its line may be. Where its channel
-- has a window, a message that was published takes room until it is passed over.
local function leave_broker(number, withdrawn)
  local found = redis.call('HMGET', record(number), 'channel', 'line', 'out', 'windowed')
  if found[4] then
    local since = redis.call('ZSCORE', sent(found[1]), number)
      or (redis.call('SISMEMBER', claimed_in(found[1]), number) == 1 and now)
    redis.call('SREM', claimed_in(found[1]), number)
    redis.call('ZREM', crowded(found[1]), number)
    if since and not withdrawn then redis.call('ZADD', stale(found[1]), since, number) end
  end
  redis.call('ZREM', unbegun, number)
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
  redis.call('ZREM', unbegun, number)
end

-- What was held back is a request of this time, with something more at the end of its envelope.
-- timeout ('': none)
local function let_go(number, more, timeout)
  local key = record(number)
  local found = redis.call('HMGET', key, 'body', 'queue', 'priority', 'timeout', 'size', 'since')
  if not found[1] then return end  -- it was cancelled while it was held back
  timeout = timeout or found[4]
  local body = found[1]:sub(1, -2) .. more .. '}'
  redis.call('HSET', key, 'at', now, 'body', body)
  if found[5] then
    redis.call('HSET', key, 'size', #body)
    count_load(0, #body - tonumber(found[5]))
  end
  if found[6] then waits_since(number, now) end
  if timeout ~= '' then redis.call('ZADD', prefix .. 'deadlines', exact(clock + tonumber(timeout)), number) end
  if found[3] == '' then
    redis.call('ZADD', outbox, now, number)
    tell(signals('outbox'), 'due')
  else
    redis.call('ZADD', delayed(found[2], found[3]), now, number)
    redis.call('ZADD', prefix .. 'open', number, number)
    wake(found[2])
  end
end

-- A step of a request has ended, or a request that consists of steps: what follows is the processes' to find out
-- (openhqm/redis/children.py), one of them, and soon.
local function ripen(number)
  redis.call('HINCRBY', record(number), 'ripened', 1)
  redis.call('ZADD', ripe, now, number)
  tell(signals('ripe'), number)
end

local function step_ended(parent, place, named, status, reply)
  local detail = '{"step_status":"' .. status .. '"}'
  if add_to_parent(parent, place, named, status, 'progress', detail) then
    redis.call('HSET', record(parent), 'p' .. place, reply)
    ripen(parent)
  end
end

-- Add a dead letter; with the number of its request: when its first attempt and its last one began.
local function add_letter(letters, letter, number)
  local times = {}
  local found = number and redis.call('HMGET', record(number), 'e2', 'step') or {}
  local steps = {first = found[1], last = found[2] and redis.call('HGET', record(number), 'e' .. found[2])}
  for name, event in pairs(steps) do
    local at = event and event:match('^processing (%S+)')
    if at then times[#times + 1] = name; times[#times + 1] = at end
  end
  redis.call('XADD', letters, string.format('%.0f-0', redis.call('INCR', letters .. ':last')), 'at', now, 'letter', letter,
    unpack(times))
end

-- Put a reply into the stream where it was asked for: its fields stand in ARGV from `first` on. The stream belongs to
-- another program. What is wrong with it (it is no stream, it must not be written) is returned: no step fails over it.
local function add_reply(reply_to, about, first)
  local added = redis.pcall('XADD', reply_to, '*', 'in_reply_to', about, unpack(ARGV, first))
  return type(added) == 'table' and added.err or nil
end

-- Write an ending down where there are readers (log_keep.lua). What a record says of it: its tags as JSON; '-': no caller
-- asks for it.
local function log_ending(number, status, tags, tenant)
  local log, endings = prefix .. 'log', prefix .. 'log:endings'
  local kept = redis.call('HMGET', log, 'until', 'most')
  if tags == '-' or not kept[1] or tonumber(kept[1]) <= clock then return end
  local last = string.format('%.0f', redis.call('HINCRBY', log, 'last', 1))
  redis.call('XADD', endings, 'MAXLEN', '~', kept[2], last .. '-0',
    'number', number, 'status', status, 'at', now, 'tags', tags or '', 'tenant', tenant or '')
  if last == '1' then redis.call('PEXPIRE', endings, redis.call('PTTL', log)) end
  tell(log, last)
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
  local asked = redis.call('HMGET', key, 'reply_to', 'about', 'held', 'size', 'tags', 'tenant', 'parent', 'place', 'named',
    'children')
  log_ending(number, status, asked[5], asked[6])
  if asked[4] then count_load(-1, -tonumber(asked[4])) end
  if asked[3] then
    for follow_up in asked[3]:gmatch('%d+') do let_go(follow_up, ',"parent_reply":' .. reply) end
  end
  if asked[7] then step_ended(asked[7], asked[8], asked[9], status, reply) end
  if asked[10] then ripen(number) end
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
