-- A page of the dead letters in order: it ends with the letter that reaches so many bytes.
-- letters, first number, most, bytes
-- the entries
local letters, start, most, bytes = ARGV[2], ARGV[3] .. '-0', tonumber(ARGV[4]), tonumber(ARGV[5])
local found, read = {}, 0
while #found < most and read < bytes do
  local entry = redis.call('XRANGE', letters, start, '+', 'COUNT', 1)[1]
  if not entry then break end
  found[#found + 1] = entry
  -- the first field of a letter is its time, the second one is the letter
  read = read + #entry[2][4]
  start = entry[1]:match('^%d+') .. '-1'  -- numbers are given out as N-0, and a number may be too large for Lua
end
return found
