-- Take responsibility for a message: claim, record, place in the queue and deadline, or nothing of it.
-- queue, lane ('': its message goes to a broker, and it is marked until that has it), body, not before ('': at once),
-- delay, timeout ('': none), recorded, claim ('': none), fingerprint, lifetime, source, entry ('': none; else what is
-- accepted stands there until it is), reply to ('': nobody), about, priority (only where its message goes to a broker)
local queue, lane, body, not_before, delay, timeout = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local recorded, claim, fingerprint, lifetime = ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local source, entry, reply_to, about, priority = ARGV[12], ARGV[13], ARGV[14], ARGV[15], ARGV[16]

refuse_when_full()

local claimed = prefix .. 'c:' .. claim
if claim ~= '' then
  local held = redis.call('HMGET', claimed, 'fingerprint', 'number', 'at', 'expires')
  if held[1] and tonumber(held[4]) > clock then
    if held[1] ~= fingerprint then return {'conflict'} end
    if redis.call('ZSCORE', unpublished, held[2]) then redis.call('HSET', record(held[2]), 'told', 1) end
    return {'repeat', held[2], held[3]}
  end
end
-- A dead letter that is tried anew, or a message of others, goes with the step that accepts it; somebody may have been
-- quicker.
if entry ~= '' and redis.call('XDEL', source, entry) == 0 then return {'unknown'} end

local number = string.format('%.0f', redis.call('INCR', prefix .. 'number'))
local due = tonumber(not_before) or clock + (tonumber(delay) or 0)
if lane == '' then
  redis.call('ZADD', unpublished, now, number)
  if due > clock then redis.call('HSET', record(number), 'due', exact(due)) end
elseif due > clock then
  redis.call('ZADD', later(queue, lane), exact(due), number)
else
  redis.call('XADD', stream(queue, lane), number .. '-0', 'at', now)
end
redis.call('HSET', record(number), 'at', now, 'body', body, 'queue', queue, 'lane', lane,
  'attempt', 0, 'last', 1, 'recorded', recorded)
if reply_to ~= '' then redis.call('HSET', record(number), 'reply_to', reply_to, 'about', about) end
if lane ~= '' then
  redis.call('ZADD', prefix .. 'open', number, number)
else
  redis.call('HSET', record(number), 'priority', priority)
  redis.call('ZADD', prefix .. 'elsewhere', number, number)
end
redis.call('SADD', prefix .. 'queues', queue)
if timeout ~= '' then
  redis.call('ZADD', prefix .. 'deadlines', exact(clock + tonumber(timeout)), number)
end
if claim ~= '' then
  redis.call('HSET', claimed, 'fingerprint', fingerprint, 'number', number, 'at', now,
    'expires', exact(clock + tonumber(lifetime)))
  redis.call('PEXPIRE', claimed, string.format('%.0f', (tonumber(lifetime) + GRACE_SECONDS) * 1000))
end
wake(queue)
return {'new', number, now}
