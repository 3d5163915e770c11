-- Take responsibility for a request that consists of steps: claim, record, deadline and the records of its steps, or
-- nothing. It stands in no queue. Its number and theirs were given out before, so that its events can name its steps.
-- number, queue, body, not before ('': at once), timeout ('': none), claim ('': none), fingerprint, lifetime ('': only a
-- repeat), the most requests and bytes ('': no limit), '1' where they do not keep it out, '1' where a limit asks which request has waited
-- longest, the tags ('': none; see log_ending), the steps as JSON (openhqm/redis/children.py), how many these are; eight
-- values for each: number, queue, priority ('': its message goes to a broker), channel, line, body, tags, how events name
-- it (JSON without its end); then the follow-ups (see hold_back)
-- {'new', at, numbers of the follow-ups}, {'repeat', number, at}, {'conflict'}, {'no repeat'}, or {'full',
-- requests, bytes}
local number, queue, body, not_before, timeout = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local claim, fingerprint, lifetime = ARGV[7], ARGV[8], ARGV[9]
local FIRST, VALUES = 17, 8

refuse_when_full()

local claimed = prefix .. 'c:' .. claim
if claim ~= '' then
  local known = redis.call('HMGET', claimed, 'fingerprint', 'number', 'at', 'expires')
  if known[1] and tonumber(known[4]) > clock then
    if known[1] ~= fingerprint then return {'conflict'} end
    return {'repeat', known[2], known[3]}
  end
  if lifetime == '' then return {'no repeat'} end
end
local counted, ordered, steps = ARGV[10] ~= '' or ARGV[11] ~= '', ARGV[13] ~= '', tonumber(ARGV[16])
local behind = FIRST + steps * VALUES
local size = #body
for index = FIRST, behind - 1, VALUES do size = size + #ARGV[index + 5] end
local full = ARGV[12] == '' and too_much(size, ARGV[10], ARGV[11])
if full then return full end

local key = record(number)
redis.call('HSET', key, 'at', now, 'body', body, 'queue', queue, 'priority', '', 'channel', '', 'line', '', 'attempt', 0,
  'last', 1, 'generation', 0, 'told', 1, 'children', steps, 'plan', ARGV[15])
note_tenant(number, body)
if counted then take_room(number, #body) end
if ARGV[14] ~= '' then redis.call('HSET', key, 'tags', ARGV[14]) end
if timeout ~= '' then
  local deadline = exact(clock + tonumber(timeout))
  redis.call('HSET', key, 'deadline', deadline)
  redis.call('ZADD', prefix .. 'deadlines', deadline, number)
end
if claim ~= '' then
  redis.call('HSET', claimed, 'fingerprint', fingerprint, 'number', number, 'at', now,
    'expires', exact(clock + tonumber(lifetime)))
  redis.call('PEXPIRE', claimed, string.format('%.0f', (tonumber(lifetime) + GRACE_SECONDS) * 1000))
end
for place = 0, steps - 1 do
  local index = FIRST + place * VALUES
  local child = ARGV[index]
  redis.call('HSET', key, 'n' .. place, child, 's' .. place, 'HELD')
  redis.call('HSET', record(child), 'at', now, 'queue', ARGV[index + 1], 'priority', ARGV[index + 2],
    'channel', ARGV[index + 3], 'line', ARGV[index + 4], 'timeout', '', 'body', ARGV[index + 5], 'attempt', 0, 'last', 1,
    'generation', 0, 'told', 1, 'parent', number, 'place', place, 'named', ARGV[index + 7])
  if ARGV[index + 6] ~= '' then redis.call('HSET', record(child), 'tags', ARGV[index + 6]) end
  note_tenant(child, ARGV[index + 5])
  if counted then take_room(child, #ARGV[index + 5]) end
  if ordered then redis.call('HSET', record(child), 'since', '') end  -- it does not wait yet
  redis.call('SADD', prefix .. 'queues', ARGV[index + 1])
end
redis.call('HSET', key, 'ripened', 0)
redis.call('ZADD', ripe, tonumber(not_before) or now, number)
tell(signals('ripe'), number)
return {'new', now, hold_back(number, counted, ordered, behind)}
