-- Remove some of the dead letters that are too many or too old.
-- letters, most ('': no limit), seconds ('': for ever), most at once
-- how many were removed, and 1 where there may be more of them
local letters, most, seconds, at_once = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
-- To learn how old a letter is Redis copies all of it, and serves no other client.
local MOST_READ = 4 * 1024 * 1024
local removed, read, more = 0, 0, 0
if most ~= '' then
  local count = redis.call('XLEN', letters)
  local too_many = math.min(count - tonumber(most), at_once)
  if too_many > 0 then removed = redis.call('XTRIM', letters, 'MAXLEN', count - too_many) end
end
while seconds ~= '' and removed < at_once do
  local entry = redis.call('XRANGE', letters, '-', '+', 'COUNT', 1)[1]
  -- the first field of a letter is its time, the second one is the letter
  if not entry or tonumber(entry[2][2]) > clock - tonumber(seconds) then break end
  removed = removed + redis.call('XDEL', letters, entry[1])
  read = read + #entry[2][4]
  if read > MOST_READ then
    more = 1
    break
  end
end
if removed >= at_once then more = 1 end
return {removed, more}
