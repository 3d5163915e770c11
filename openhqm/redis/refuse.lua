-- What cannot be accepted: a dead letter, and gone from where it was read. Somebody may have been quicker.
-- source, entry, dead letters, letter, reply to ('': nobody), about, the fields of the reply
-- '1', and words behind it where the reply could not be put into its stream; '0' where it was gone.
local source, entry, letters, letter, reply_to, about = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
refuse_when_full()
if redis.call('XDEL', source, entry) == 0 then return '0' end
add_letter(letters, letter)
local trouble = reply_to ~= '' and answer(reply_to, about, 8)
return trouble and '1 ' .. trouble or '1'
