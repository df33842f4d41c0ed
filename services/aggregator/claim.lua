-- Takes back a lease that ran out, unless somebody else has it. KEYS: lease, totals. ARGV: token, lease in ms.
-- Returns nothing where it is taken, else the position of the totals (empty where there are none) and the token of who
-- brought them there.
-- A script that has written may go on where Redis is full: the owner is who makes room there.
redis.call('PERSIST', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 1 then
  return false
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {redis.call('HGET', KEYS[2], 'position') or '', redis.call('HGET', KEYS[2], 'writer') or ''}
