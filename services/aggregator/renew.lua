-- Keeps the lease (for 0 ms: gives it back), and says up to where the stream was read.
-- KEYS: lease, applied. ARGV: token, lease in ms, cursor or nothing. Returns {'ok'} or {'fenced'}.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'fenced'}
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[2], 'cursor', ARGV[3])
end
return {'ok'}
