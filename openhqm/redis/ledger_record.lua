-- Take responsibility for a request whose message goes to a broker: claim, record, outbox entry and deadline, or nothing.
-- queue, channel, line ('': order does not matter), body, not before ('': at once), timeout ('': none), claim ('': none),
-- fingerprint, lifetime ('': only a repeat is accepted), source, entry ('': none; else what is accepted stands there until it is), seconds of the claim
-- ('': the outbox publishes it), the most requests and bytes ('': no limit), '1' where they do not
-- keep it out, '1' where a limit asks which request has waited longest, the window of a channel
-- ('': none), the tags ('': none; see log_ending), the follow-ups (see hold_back)
-- {'new', number, at, waits ('1': the outbox publishes it; '0': the caller does), numbers of the follow-ups; with a coalesce key:
-- the number of the one that has ended, or ''}, {'repeat', number, at}, {'conflict'}, {'full', requests, bytes}, {'no repeat'}, or {'unknown'}: the entry is gone.
local queue, channel, name, body, not_before, timeout = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local claim, fingerprint, lifetime = ARGV[8], ARGV[9], ARGV[10]
local source, entry, claim_seconds = ARGV[11], ARGV[12], tonumber(ARGV[13])

refuse_when_full()

local claimed = prefix .. 'c:' .. claim
if claim ~= '' then
  local known = redis.call('HMGET', claimed, 'fingerprint', 'number', 'at', 'expires')
  if known[1] and tonumber(known[4]) > clock then
    if known[1] ~= fingerprint then return {'conflict'} end
    if redis.call('EXISTS', record(known[2])) == 1 then redis.call('HSET', record(known[2]), 'told', 1) end
    return {'repeat', known[2], known[3]}
  end
  if lifetime == '' then return {'no repeat'} end
end
local counted = ARGV[14] ~= '' or ARGV[15] ~= ''
local full = ARGV[16] == '' and too_much(#body, ARGV[14], ARGV[15])
if full then return full end
if entry ~= '' and redis.call('XDEL', source, entry) == 0 then return {'unknown'} end

local number = coalesce and coalesce.number or string.format('%.0f', redis.call('INCR', prefix .. 'number'))
local key, due, waits = record(number), coalesce and coalesce.due() or tonumber(not_before) or 0, '1'
redis.call('HSET', key, 'at', now, 'body', body, 'queue', queue, 'priority', '', 'channel', channel, 'line', name,
  'attempt', 0, 'last', 1, 'generation', 0)
note_tenant(number, body)
if counted then take_room(number, #body) end
if ARGV[19] ~= '' then redis.call('HSET', key, 'tags', ARGV[19]) end
if ARGV[17] ~= '' then waits_since(number, due > clock and exact(due) or now) end
if due > clock then
  redis.call('ZADD', outbox, exact(due), number)
elseif joins(number, name) then
  if not claim_seconds then
    redis.call('ZADD', outbox, now, number)
  elseif not is_crowded_out(number, channel, now, ARGV[18]) then
    waits = '0'
    claim_entry(number, claim_seconds, ARGV[18])
  end
end
if entry ~= '' or not claim_seconds then redis.call('HSET', key, 'told', 1) end
redis.call('SADD', prefix .. 'queues', queue)
if timeout ~= '' then
  redis.call('ZADD', prefix .. 'deadlines', exact(clock + tonumber(timeout)), number)
end
if claim ~= '' then
  redis.call('HSET', claimed, 'fingerprint', fingerprint, 'number', number, 'at', now,
    'expires', exact(clock + tonumber(lifetime)))
  redis.call('PEXPIRE', claimed, string.format('%.0f', (tonumber(lifetime) + GRACE_SECONDS) * 1000))
end
local held = ARGV[20] and hold_back(number, counted, ARGV[17] ~= '', 20)
if coalesce then return {'new', number, now, waits, held or {}, coalesce.take()} end
return {'new', number, now, waits, held}
