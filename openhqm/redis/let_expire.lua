-- The idempotency keys are free a while from now, where each holds the request with that fingerprint.
-- In turn: key, fingerprint, lifetime
for index = 2, #ARGV, 3 do
  local claimed, lifetime = prefix .. 'c:' .. ARGV[index], tonumber(ARGV[index + 2])
  if redis.call('HGET', claimed, 'fingerprint') == ARGV[index + 1] then
    redis.call('HSET', claimed, 'expires', exact(clock + lifetime))
    redis.call('PEXPIRE', claimed, string.format('%.0f', (lifetime + GRACE_SECONDS) * 1000))
  end
end
return 'OK'
