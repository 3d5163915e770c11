-- Choose the requests that are delivered next, count their attempts and lease them, before any worker sees them.
-- queue, most, lease, token, in order ('1': one, and none while another is delivered or waits for its retry)
-- Returns the rows (number, at, attempt, body) and in how many seconds to look again, should they be all ('': nothing is
-- known of).
local queue, most, lease, token, in_order = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6] == '1'
local MOST_LOOKS = 10
local ONE_IN = 10  -- as in openhqm/policy/shares.py

refuse_when_full()

-- A request whose lease has run out goes first in its priority; the token of its late delivery settles nothing any more.
local lost = redis.call('ZRANGEBYSCORE', leases(queue), '-inf', exact(clock), 'WITHSCORES', 'LIMIT', 0, 1000)
for index = 1, #lost, 2 do
  local number = lost[index]
  redis.call('ZREM', leases(queue), number)
  local found = redis.call('HMGET', record(number), 'priority', 'ended')
  if found[1] and not found[2] then
    redis.call('HSET', record(number), 'token', '')
    redis.call('ZADD', redeliveries(queue, found[1]), lost[index + 1], number)
  end
end

local rows = {}

local function deliver_one(number)
  local key = record(number)
  local found = redis.call('HMGET', key, 'body', 'at', 'since', 'parent')
  if not found[1] then return end  -- it has ended
  local attempt = redis.call('HINCRBY', key, 'attempt', 1)
  if found[3] then redis.call('ZREM', unbegun, number) end
  redis.call('HSET', key, 'token', token)
  redis.call('ZADD', leases(queue), exact(clock + lease), number)
  add_event(number, 'processing', '{"attempt":' .. attempt .. '}', found[4])
  rows[#rows + 1] = {number, found[2], attempt, found[1]}
end

local enough = most  -- how many rows there may be before the next priority is looked at

local function deliver_due(set)
  if #rows >= enough then return end
  for _, number in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', exact(clock), 'LIMIT', 0, enough - #rows)) do
    redis.call('ZREM', set, number)
    deliver_one(number)
  end
end

local function read(priority)
  local function ask()
    return redis.pcall('XREADGROUP', 'GROUP', GROUP, READER, 'COUNT', enough - #rows, 'STREAMS', stream(queue, priority), '>')
  end
  local answer = ask()
  if type(answer) == 'table' and answer.err then
    -- The first look at this queue, or its stream or group was deleted: a group that begins at the beginning.
    redis.call('XGROUP', 'CREATE', stream(queue, priority), GROUP, '0', 'MKSTREAM')
    answer = ask()
  end
  return answer and answer[1] and answer[1][2] or {}
end

local function deliver_fresh(priority)
  for _ = 1, MOST_LOOKS do
    if #rows >= enough or redis.call('EXISTS', stream(queue, priority)) == 0 then return end
    local entries = read(priority)
    for _, entry in ipairs(entries) do
      local number = entry[1]:match('^%d+')
      local key = record(number)
      if redis.call('HEXISTS', key, 'body') == 0 then
        -- It has ended, or is no entry of ours.
        redis.call('XACK', stream(queue, priority), GROUP, entry[1])
        redis.call('XDEL', stream(queue, priority), entry[1])
      elseif redis.call('HEXISTS', key, 'token') == 0 then
        deliver_one(number)
      end  -- else it was delivered before the group was made again, and stands in the leases or the redeliveries
    end
    if #entries == 0 then return end
  end
end

-- In order: whether another one is delivered, or waits for its retry.
local function blocked()
  if redis.call('ZCARD', leases(queue)) > 0 then return true end
  for _, priority in ipairs(PRIORITIES) do
    if redis.call('ZCOUNT', redeliveries(queue, priority), '(' .. exact(clock), '+inf') > 0 then return true end
  end
  return false
end

-- A request that is due already, behind one that blocks it, is worth a look when that one is over.
local function soonest(behind)
  local found = nil
  local function look(set, from)
    local first = redis.call('ZRANGEBYSCORE', set, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if first[2] and (not found or tonumber(first[2]) < tonumber(found)) then found = first[2] end
  end
  look(leases(queue), '-inf')
  for _, priority in ipairs(PRIORITIES) do
    look(redeliveries(queue, priority), behind and '(' .. exact(clock) or '-inf')
    if not behind then look(delayed(queue, priority), '-inf') end
  end
  return found and exact(math.max(0, tonumber(found) - clock)) or ''
end

-- Whether something of that priority can be delivered now; what has ended counts until it is passed over.
local function filled(priority)
  if redis.call('ZCOUNT', redeliveries(queue, priority), '-inf', exact(clock)) > 0 then return true end
  if redis.call('ZCOUNT', delayed(queue, priority), '-inf', exact(clock)) > 0 then return true end
  local length = redis.call('XLEN', stream(queue, priority))
  if length == 0 then return false end
  local pending = redis.pcall('XPENDING', stream(queue, priority), GROUP)
  return pending.err ~= nil or length > pending[1]
end

-- Under saturation each lower priority that has something gets one turn in ONE_IN, so that none starves. The turns are
-- counted where there is a choice, for all processes together. Returns how many of the next ones each lower one has.
local function turns_below(turn)
  local turns = {normal = 0, low = 0}
  if turn % ONE_IN + most < ONE_IN - 1 then return turns end
  local lower = {}
  if filled('low') then lower[1] = 'low' end
  if filled('normal') then lower[#lower + 1] = 'normal' end
  for number = turn + 1, turn + most do
    local priority = lower[-number % ONE_IN + 1]
    if priority then turns[priority] = turns[priority] + 1 end
  end
  return turns
end

local function deliver(priority, limit)
  local before = #rows
  enough = math.min(limit, most)
  deliver_due(redeliveries(queue, priority))
  deliver_due(delayed(queue, priority))
  deliver_fresh(priority)
  return #rows - before
end

local function deliver_by_priority()
  local turn = tonumber(redis.call('GET', part(queue, 'turn')) or 0)
  local turns = turns_below(turn)
  local delivered = {high = 0, normal = 0, low = 0}
  if turns.normal + turns.low > 0 then
    turns.high = most - turns.normal - turns.low
    for _, priority in ipairs(PRIORITIES) do delivered[priority] = deliver(priority, #rows + turns[priority]) end
  end
  for _, priority in ipairs(PRIORITIES) do
    delivered[priority] = delivered[priority] + deliver(priority, most)
  end
  if #rows < most then return end
  local able = 0
  for _, priority in ipairs(PRIORITIES) do
    if delivered[priority] > 0 or filled(priority) then able = able + 1 end
  end
  if able > 1 then redis.call('SET', part(queue, 'turn'), (turn + #rows) % ONE_IN) end
end

if in_order then most = 1 end
if not (in_order and blocked()) then deliver_by_priority() end
if #rows < most and redis.call('EXISTS', part(queue, 'waiting')) == 0 then
  redis.call('SET', part(queue, 'waiting'), 1)
end
return {rows, soonest(in_order and blocked())}
