-- Move a message that cannot wait in the broker into the outbox. '0' where it is worth nothing.
-- number, generation of the message, body, delay
local number, generation, body, delay = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
refuse_when_full()
local found = redis.call('HMGET', record(number), 'channel', 'ended', 'generation')
if not found[1] or found[2] or generation < tonumber(found[3]) then return '0' end
publish_again(number, body, exact(clock + delay))
return '1'
