-- Takes the shard where nobody owns it. KEYS: lease, fence, totals. ARGV: lease in ms, nonce, and a field that the totals
-- must have, or nothing.
-- Returns the fencing token, or nothing.
-- A script that has written may go on where Redis is full: the owner is who makes room there.
redis.call('PERSIST', KEYS[2])
-- Redis's clock may have been set back after its owner died: the lease would last until that time comes again. One that
-- lives renews it.
local left = redis.call('PTTL', KEYS[1])
if left == -1 or left > tonumber(ARGV[1]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
if left ~= -2 or (ARGV[3] ~= '' and redis.call('HEXISTS', KEYS[3], ARGV[3]) == 0) then
  return false
end
-- Tokens restart when the store was lost: the nonce keeps them apart.
local token = redis.call('INCR', KEYS[2]) .. '-' .. ARGV[2]
redis.call('SET', KEYS[1], token, 'PX', ARGV[1])
return token
