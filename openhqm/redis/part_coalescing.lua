-- Requests with a coalesce key, for the scripts that accept: the newest has the place, and the one that had it ends.
-- The last seven values of ARGV are: the key, its window and most wait in seconds, the number and the id of this
-- request, the reply of the other one with an empty id, and for how long that is kept. '' alone: it has no key.
if ARGV[#ARGV] == '' then
  table.remove(ARGV)
else
  coalesce = {}
  for _, name in ipairs({'ttl', 'reply', 'id', 'number', 'most', 'window', 'key'}) do
    coalesce[name] = table.remove(ARGV)
  end
  coalesce.place = prefix .. 'k:' .. coalesce.key

  -- When this request begins.
  function coalesce.due()
    local known = redis.call('HMGET', coalesce.place, 'until', 'number', 'id')
    coalesce.till = exact(clock + tonumber(coalesce.most))
    if known[1] and tonumber(known[1]) > clock then
      local found = redis.call('HMGET', record(known[2]), 'queue', 'priority', 'ended', 'attempt')
      if found[1] and not found[3] and found[4] == '0' then
        coalesce.till = known[1]
        coalesce.earlier = {known[2], known[3], found[1], found[2]}
      end
    end
    return math.min(clock + tonumber(coalesce.window), tonumber(coalesce.till))
  end

  -- It has the place. The number of the one that had it, or ''.
  function coalesce.take()
    redis.call('HSET', coalesce.place, 'until', coalesce.till, 'number', coalesce.number, 'id', coalesce.id)
    local left = tonumber(coalesce.till) - clock + GRACE_SECONDS
    redis.call('PEXPIRE', coalesce.place, string.format('%.0f', left * 1000))
    if not coalesce.earlier then return '' end
    local number, id, queue, priority = unpack(coalesce.earlier)
    local reply = coalesce.reply:gsub('"correlation_id":""', '"correlation_id":"' .. id .. '"', 1)
    end_request(number, queue, priority, 'CANCELLED', reply, coalesce.ttl, #ARGV + 1)
    return number
  end
end
