-- The broker has these messages. An entry of a later generation stays, and so does one whose message may have been lost
-- with its channel since it was claimed.
-- the window of a channel ('': none; else the bodies stay, for what it loses), then in turn: number, generation
for index = 3, #ARGV, 2 do
  local number, key = ARGV[index], record(ARGV[index])
  local found = redis.call('HMGET', key, 'generation', 'claimed', 'channel')
  if found[1] == ARGV[index + 1] and found[2] and found[2] == epoch(found[3]) then
    if redis.call('ZREM', outbox, number) == 1 then
      redis.call('ZADD', sent(found[3]), now, number)
      redis.call('SREM', claimed_in(found[3]), number)
      redis.call('HDEL', key, 'claimed')
      if ARGV[2] == '' then redis.call('HDEL', key, 'body') end
    end
  end
end
return 'OK'
