-- Take marks away. One that was set since, for a newer copy, stays.
-- then in turn: number, the attempts that the copy carries
for index = 2, #ARGV, 2 do
  local number, key = ARGV[index], record(ARGV[index])
  if tonumber(redis.call('HGET', key, 'carried') or '0') == tonumber(ARGV[index + 1]) then
    if redis.call('ZREM', unpublished, number) == 1 then redis.call('HDEL', key, 'body') end
  end
end
return 'OK'
