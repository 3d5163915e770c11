-- The record of a request: at, the last event that was no progress ('': none), and of an ended one the reply and its
-- expiry. Nothing where it has expired.
-- number
local key = record(ARGV[2])
local found = redis.call('HMGET', key, 'at', 'step', 'reply', 'expires')
if not found[1] or (found[4] and tonumber(found[4]) <= clock) then return {} end
local step = found[2] and redis.call('HGET', key, 'e' .. found[2]) or ''
return {found[1], step, found[3] or '', found[4] or ''}
