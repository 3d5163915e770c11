-- Add a progress event. '1'; 'full' past the limit of a history; 'lost' where the delivery is over, or the record gone.
-- number, token ('*': whichever attempt has it; then 'ended' where it has ended), detail, most events
local number, token, detail, most = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
refuse_when_full()
local found = redis.call('HMGET', record(number), 'token', 'last', 'ended')
if not found[2] or (token ~= '*' and found[1] ~= token) then return 'lost' end
if found[3] then return token == '*' and 'ended' or '1' end  -- a history ends with its ending
if tonumber(found[2]) >= most then return 'full' end
add_to_history(number, 'progress', detail)
return '1'
