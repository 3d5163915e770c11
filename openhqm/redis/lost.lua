-- Of the requests whose messages lie with a broker, those that it has lost. What has a message here is marked anew, the
-- rest is told, to be ended: also what is in work, for whoever works on it has lost it, too. What waits for its time in
-- no queue of its own is lost where everything is.
-- after, most, queue, priority ('': all of them)
-- the last number looked at ('': there are no more), how many were marked, the numbers of those to be ended
local after, most, queue, priority = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local marked, ended, last = 0, {}, ''
for _, number in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'elsewhere', '(' .. after, '+inf', 'LIMIT', 0, most)) do
  last = number
  local key = record(number)
  local found = redis.call('HMGET', key, 'queue', 'priority', 'ended', 'body', 'due')
  local lay_there = queue == '' or (found[1] == queue and found[2] == priority)
  local is_due = queue == '' or tonumber(found[5] or '0') <= clock
  if found[1] and not found[3] and lay_there then
    if redis.call('ZSCORE', unpublished, number) then
      -- Maybe it lay there, and whoever published it has not noted that yet.
      if is_due then redis.call('HSET', key, 'doubted', 1) end
    elseif found[4] then
      redis.call('ZADD', unpublished, 0, number)
      redis.call('HSET', key, 'told', 1)
      marked = marked + 1
    elseif is_due or redis.call('ZSCORE', loans(queue), number) then
      ended[#ended + 1] = number
    end
  end
end
return {last, marked, ended}
