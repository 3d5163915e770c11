-- The broker may not have these messages: the claims on them are over, and they are due. One of a later generation stays.
-- in turn: number, generation
for index = 2, #ARGV, 2 do
  local found = redis.call('HMGET', record(ARGV[index]), 'generation', 'claimed')
  if found[1] == ARGV[index + 1] and found[2] then redis.call('ZADD', outbox, 'XX', now, ARGV[index]) end
end
return 'OK'
