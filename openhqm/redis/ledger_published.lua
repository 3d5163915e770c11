-- The broker has these messages. An entry of a later generation stays, and so does one whose message may have been lost
-- with its channel since it was claimed.
-- then in turn: number, generation
for index = 2, #ARGV, 2 do
  local number, key = ARGV[index], record(ARGV[index])
  local found = redis.call('HMGET', key, 'generation', 'claimed', 'channel')
  if found[1] == ARGV[index + 1] and found[2] and found[2] == epoch(found[3]) then
    if redis.call('ZREM', outbox, number) == 1 then
      redis.call('ZADD', sent(found[3]), now, number)
      redis.call('HDEL', key, 'body', 'claimed')
    end
  end
end
return 'OK'
