-- Take marks away. One that was set since, for a newer copy, stays, and so does one whose copy may be lost since.
-- then in turn: number, the attempts that the copy carries
for index = 2, #ARGV, 2 do
  local number, key = ARGV[index], record(ARGV[index])
  local found = redis.call('HMGET', key, 'carried', 'doubted')
  if tonumber(found[1] or '0') == tonumber(ARGV[index + 1]) and not found[2] then
    if redis.call('ZREM', unpublished, number) == 1 then redis.call('HDEL', key, 'body') end
  end
end
return 'OK'
