-- Keeps the lease (for 0 ms: gives it back), and says up to where the stream was read.
-- KEYS: lease, applied, flows. ARGV: token, lease in ms, cursor or nothing. Returns {'ok'} or {'fenced'}.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'fenced'}
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[2], 'cursor', ARGV[3])
  -- It may be a time. Should Redis's clock be set back, what comes next must not lie before it, where nobody reads.
  if type(redis.pcall('XADD', KEYS[3], ARGV[3], 'end', '')) == 'string' then
    redis.call('XDEL', KEYS[3], ARGV[3])
  end
end
return {'ok'}
