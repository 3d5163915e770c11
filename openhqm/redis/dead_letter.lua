-- Add a dead letter for a message that is no request of ours.
-- dead letters, letter
refuse_when_full()
add_letter(ARGV[2], ARGV[3])
return 'OK'
