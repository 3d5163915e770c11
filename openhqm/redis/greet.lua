-- The first script on every connection: the secret of the ids, the number given out last, and the key that exists for as
-- long as the secret is this one.
-- run id of the server, a secret to begin with, the highest number that this process has seen
-- the secret, the number, the key; or 'layout', the layout of the keys that are there, and the one that is known here
local run, secret, seen = ARGV[2], ARGV[3], tonumber(ARGV[4])
local LEAP = 1000000
-- Members with the same due time are in the order of their text in a sorted set. From here on all numbers have thirteen
-- digits, for 9e12 requests, and so that is the order in which they were given out.
local FIRST = 1000000000000
local LAYOUT = '3'  -- of the keys; those of another one are not touched
local LIKE_IT = '2'  -- an older one whose keys mean the same: what came with this one is not there

refuse_when_full()
local layout = redis.call('GET', prefix .. 'layout')
if not layout and redis.call('EXISTS', prefix .. 'number') == 1 then layout = '1' end  -- it did not say so itself
if layout and layout ~= LAYOUT and layout ~= LIKE_IT then return {'layout', layout, LAYOUT} end
redis.call('SET', prefix .. 'layout', LAYOUT)
redis.call('SET', prefix .. 'secret', secret, 'NX')
local number = tonumber(redis.call('GET', prefix .. 'number') or '0')
if redis.call('GET', prefix .. 'run') ~= run or number < FIRST then
  -- Another server than last time: one that was restarted, or a replica that took over. It may have forgotten the last
  -- numbers given out. No number is given out twice, so it goes on beyond all of them.
  redis.call('SET', prefix .. 'run', run)
  redis.call('DEL', prefix .. 'log')  -- it may have forgotten endings that were read: readers have to know
  redis.call('SET', prefix .. 'number', string.format('%.0f', math.max(number, seen, FIRST) + LEAP))
end
local known = redis.call('GET', prefix .. 'secret')
local witness = prefix .. 'known:' .. redis.sha1hex(known)
redis.call('SET', witness, now)
return {known, string.format('%.0f', number), witness}
