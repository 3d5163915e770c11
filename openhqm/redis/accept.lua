-- Take responsibility for a request: idempotency key, record, place in the queue and deadline, or nothing of it.
-- queue, priority, body, not before ('': at once), timeout ('': none), idempotency key ('': none), fingerprint, lifetime ('': only a
-- repeat is accepted),
-- source, entry ('': none; else a dead letter that stands there until it is accepted), reply to ('': none is asked for), about,
-- the most requests and bytes ('': no limit), '1' where they do not keep it out, '1' where a limit asks which request
-- has waited longest, the tags ('': none; see log_ending), the follow-ups (see hold_back)
-- {'new', number, time, numbers of the follow-ups, if any; with a coalesce key: the number of the one that has ended, or ''}; {'full', requests, bytes}: there is no room; {'no repeat'}; {'repeat', number, time}; {'conflict'}: the key holds another request; {'unknown'}: the entry is
-- gone
local queue, priority, body, not_before, timeout = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local claim, fingerprint, lifetime = ARGV[7], ARGV[8], ARGV[9]
local source, entry, reply_to, about = ARGV[10], ARGV[11], ARGV[12], ARGV[13]

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
local counted = ARGV[14] ~= '' or ARGV[15] ~= ''
local full = ARGV[16] == '' and too_much(#body, ARGV[14], ARGV[15])
if full then return full end
-- A dead letter that is redriven is deleted in the step that accepts it. Another process may have done so already.
if entry ~= '' and redis.call('XDEL', source, entry) == 0 then return {'unknown'} end

local number = coalesce and coalesce.number or string.format('%.0f', redis.call('INCR', prefix .. 'number'))
local due = coalesce and coalesce.due() or tonumber(not_before) or clock
redis.call('HSET', record(number), 'at', now, 'body', body, 'queue', queue, 'priority', priority, 'attempt', 0, 'last', 1)
note_tenant(number, body)
if counted then take_room(number, #body) end
if ARGV[18] ~= '' then redis.call('HSET', record(number), 'tags', ARGV[18]) end
if ARGV[17] ~= '' then waits_since(number, due > clock and exact(due) or now) end
if due > clock or coalesce then  -- in a stream its number may be lower than the last one
  redis.call('ZADD', delayed(queue, priority), exact(due), number)
else
  redis.call('XADD', stream(queue, priority), number .. '-0', 'at', now)
end
redis.call('ZADD', prefix .. 'open', number, number)
if reply_to ~= '' then redis.call('HSET', record(number), 'reply_to', reply_to, 'about', about) end
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
local held = ARGV[19] and hold_back(number, counted, ARGV[17] ~= '', 19)
if coalesce then return {'new', number, now, held or {}, coalesce.take()} end
return {'new', number, now, held}
