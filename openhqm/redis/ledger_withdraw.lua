-- Take back a request that could not be published, with its claim. '0' where a caller or a worker knows of it.
-- number, claim ('': none)
local number, claim = ARGV[2], ARGV[3]
local key = record(number)
local found = redis.call('HMGET', key, 'told', 'ended', 'claimed', 'held', 'size')
if found[1] or found[2] or not found[3] or not redis.call('ZSCORE', outbox, number) then return '0' end
leave_broker(number, true)
if found[5] then count_load(-1, -tonumber(found[5])) end
if found[4] then
  for follow_up in found[4]:gmatch('%d+') do
    local size = redis.call('HGET', record(follow_up), 'size')
    if size then count_load(-1, -tonumber(size)) end
    redis.call('DEL', record(follow_up))
  end
end
redis.call('DEL', key)
redis.call('ZREM', prefix .. 'deadlines', number)
local claimed = prefix .. 'c:' .. claim
if claim ~= '' and redis.call('HGET', claimed, 'number') == number then redis.call('DEL', claimed) end
return '1'
