-- What waits in a queue for its first attempt: for each priority its name, how many, and when the first was accepted
-- ('': there is none).
-- queue
local found = {}
for _, priority in ipairs(PRIORITIES) do
  local count, first = fresh(ARGV[2], priority)
  found[#found + 1] = {priority, count, first}
end
return found
