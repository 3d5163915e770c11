-- The record of a request: at, the last event that was no progress ('': none), of an ended one the reply and its
-- expiry, and the tenant. Nothing where it has expired.
-- number
local key = record(ARGV[2])
local found = redis.call('HMGET', key, 'at', 'step', 'reply', 'expires', 'tenant')
if not found[1] or (found[4] and tonumber(found[4]) <= clock) then return {} end
local step = found[2] and redis.call('HGET', key, 'e' .. found[2]) or ''
return {found[1], step, found[3] or '', found[4] or '', found[5] or ''}
