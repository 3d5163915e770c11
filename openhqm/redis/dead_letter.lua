-- Add a dead letter for a message that is no request of ours.
-- dead letters, letter, reply to (left out, or '': none is asked for), about, the fields of the reply
-- '1', and the reason behind it where the reply could not be put into its stream
local letters, letter, reply_to, about = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
refuse_when_full()
add_letter(letters, letter)
local problem = reply_to and reply_to ~= '' and add_reply(reply_to, about, 6)
return problem and '1 ' .. problem or '1'
