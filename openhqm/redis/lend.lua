-- Choose what goes next, count its attempt, and lend it: all before anybody sees it.
-- queue, most, lease, token, in order ('1': with one, and nothing while another is on loan or waits for its retry)
-- Returns the rows (number, at, attempt, body) and in how many seconds to look again, should they be all ('': nothing is known of).
local queue, most, lease, token, in_order = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6] == '1'
local MOST_LOOKS = 10

refuse_when_full()

-- A loan whose lease has run out goes first of its lane; its late holder's token is good for nothing any more.
local lost = redis.call('ZRANGEBYSCORE', loans(queue), '-inf', exact(clock), 'WITHSCORES', 'LIMIT', 0, 1000)
for index = 1, #lost, 2 do
  local number = lost[index]
  redis.call('ZREM', loans(queue), number)
  local found = redis.call('HMGET', record(number), 'lane', 'ended')
  if found[1] and not found[2] then
    redis.call('HSET', record(number), 'token', '')
    redis.call('ZADD', again(queue, found[1]), lost[index + 1], number)
  end
end

local rows = {}

local function lend(number)
  local key = record(number)
  local found = redis.call('HMGET', key, 'body', 'at', 'recorded')
  if not found[1] then return end  -- it has ended
  local attempt = redis.call('HINCRBY', key, 'attempt', 1)
  redis.call('HSET', key, 'token', token)
  redis.call('ZADD', loans(queue), exact(clock + lease), number)
  if found[3] == '1' then add_event(number, 'processing', '{"attempt":' .. attempt .. '}') end
  rows[#rows + 1] = {number, found[2], attempt, found[1]}
end

local function lend_due(set)
  if #rows >= most then return end
  for _, number in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', exact(clock), 'LIMIT', 0, most - #rows)) do
    redis.call('ZREM', set, number)
    lend(number)
  end
end

local function read(lane)
  local function ask()
    return redis.pcall('XREADGROUP', 'GROUP', GROUP, READER, 'COUNT', most - #rows, 'STREAMS', stream(queue, lane), '>')
  end
  local answer = ask()
  if type(answer) == 'table' and answer.err then
    -- The first look at this queue, or somebody deleted stream or group: a group that begins at the beginning.
    redis.call('XGROUP', 'CREATE', stream(queue, lane), GROUP, '0', 'MKSTREAM')
    answer = ask()
  end
  return answer and answer[1] and answer[1][2] or {}
end

local function lend_fresh(lane)
  for _ = 1, MOST_LOOKS do
    if #rows >= most or redis.call('EXISTS', stream(queue, lane)) == 0 then return end
    local entries = read(lane)
    for _, entry in ipairs(entries) do
      local number = entry[1]:match('^%d+')
      local key = record(number)
      if redis.call('HEXISTS', key, 'body') == 0 then
        -- Nothing of ours is left of it.
        redis.call('XACK', stream(queue, lane), GROUP, entry[1])
        redis.call('XDEL', stream(queue, lane), entry[1])
      elseif redis.call('HEXISTS', key, 'token') == 0 then
        lend(number)
      end  -- else it was lent before the group was made anew, and stands among the loans or waits for its retry
    end
    if #entries == 0 then return end
  end
end

-- In order: whether another one is on loan, or waits for its retry.
local function held_up()
  if redis.call('ZCARD', loans(queue)) > 0 then return true end
  for _, lane in ipairs(LANES) do
    if redis.call('ZCOUNT', again(queue, lane), '(' .. exact(clock), '+inf') > 0 then return true end
  end
  return false
end

-- What is due already, behind one that holds it up, is worth a look when that is over.
local function soonest(held)
  local found = nil
  local function look(set, from)
    local first = redis.call('ZRANGEBYSCORE', set, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if first[2] and (not found or tonumber(first[2]) < tonumber(found)) then found = first[2] end
  end
  look(loans(queue), '-inf')
  for _, lane in ipairs(LANES) do
    look(again(queue, lane), held and '(' .. exact(clock) or '-inf')
    if not held then look(later(queue, lane), '-inf') end
  end
  return found and exact(math.max(0, tonumber(found) - clock)) or ''
end

if in_order then most = 1 end
if not (in_order and held_up()) then
  for _, lane in ipairs(LANES) do
    lend_due(again(queue, lane))
    lend_due(later(queue, lane))
    lend_fresh(lane)
  end
end
if #rows < most and redis.call('EXISTS', part(queue, 'hungry')) == 0 then
  redis.call('SET', part(queue, 'hungry'), 1)
end
return {rows, soonest(in_order and held_up())}
