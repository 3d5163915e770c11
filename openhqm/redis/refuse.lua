-- Make a message that cannot be accepted a dead letter, and delete it where it was read. Another process may have done
-- so already.
-- source, entry, dead letters, letter, reply to ('': none is asked for), about, the fields of the reply
-- '1', and the reason behind it where the reply could not be put into its stream; '0' where the message was gone.
local source, entry, letters, letter, reply_to, about = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
refuse_when_full()
if redis.call('XDEL', source, entry) == 0 then return '0' end
add_letter(letters, letter)
local problem = reply_to ~= '' and add_reply(reply_to, about, 8)
return problem and '1 ' .. problem or '1'
