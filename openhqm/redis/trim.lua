-- Remove some of the dead letters that are too many or too old.
-- letters, most ('': no limit), seconds ('': for ever), most at once
-- how many were removed
local letters, most, seconds, at_once = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local too_many = most ~= '' and redis.call('XLEN', letters) - tonumber(most) or 0
local too_old = seconds ~= '' and clock - tonumber(seconds) or -1
local removed = 0
for index, entry in ipairs(redis.call('XRANGE', letters, '-', '+', 'COUNT', at_once)) do
  local at = tonumber(entry[2][2])  -- the first field of a letter is its time
  if index > too_many and at > too_old then break end
  removed = removed + redis.call('XDEL', letters, entry[1])
end
return removed
