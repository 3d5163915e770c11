-- What stands above is done for each of many requests: they are one step. For each: how many values, and the values.
-- The answers, in order.
end

local answers, index = {}, 2
while index <= #ARGV do
  local values = {now}
  for offset = 1, tonumber(ARGV[index]) do values[offset + 1] = ARGV[index + offset] end
  index = index + #values
  answers[#answers + 1] = one(values)
end
return answers
