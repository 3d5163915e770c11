-- End this process's turn at finding out what the broker has lost.
-- token
if redis.call('GET', prefix .. 'recovering') == ARGV[2] then redis.call('DEL', prefix .. 'recovering') end
return 'OK'
