-- One commit: all of it or nothing, and only by the owner of the shard.
-- KEYS: lease, totals, applied, ticks, history, flows. ARGV: token, lease in ms, the change, attempt.
-- A change with `fresh` begins by emptying the shard; one with `part` brings rows and peers ahead
-- of the change that completes them. Returns {'ok'}, {'fenced'} or {'moved', position, token of who brought it there}.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'fenced'}
end
-- This comes first also because a script that has written may go on where Redis is full.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local function moved()
  return {'moved', redis.call('HGET', KEYS[2], 'position') or '', redis.call('HGET', KEYS[2], 'writer') or ''}
end
local change = cmsgpack.unpack(ARGV[3])
local attempt = ARGV[1] .. ' ' .. ARGV[4]
local latest_attempt = redis.call('HGET', KEYS[2], 'attempt') or ''
if change.fresh then
  -- A partition may deliver what its sender gave up long ago: it must not empty what followed.
  local token, number = string.match(latest_attempt, '^(%S+) (%d+)$')
  if token == ARGV[1] and tonumber(number) >= tonumber(ARGV[4]) then
    return moved()
  end
  -- A new epoch: what another one left must not be mixed with ours.
  for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
    local number = string.match(field, '^row:(%d+)$')
    if number then
      redis.call('DEL', change.peers_prefix .. number)
    end
  end
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
  redis.call('HSET', KEYS[2], 'attempt', attempt)
elseif (change.part or change.expected == '') and latest_attempt ~= attempt then
  return moved()
end
local function set(key, pairs_)
  -- Lua's stack bounds how many arguments one call may have.
  for at = 1, #pairs_, 2000 do
    redis.call('HSET', key, unpack(pairs_, at, math.min(at + 1999, #pairs_)))
  end
end
local function drop(key, fields)
  for at = 1, #fields, 2000 do
    redis.call('HDEL', key, unpack(fields, at, math.min(at + 1999, #fields)))
  end
end
if not change.part then
  if (redis.call('HGET', KEYS[2], 'position') or '') ~= change.expected then
    return moved()
  end
end
-- Totals and applied numbers go with the same command: what may write the ones may write the others.
set(KEYS[2], change.totals)
if not change.part then
  set(KEYS[3], change.applied)
  set(KEYS[5], change.history)
end
for number, pairs_ in pairs(change.peers) do
  set(change.peers_prefix .. number, pairs_)
end
if change.part then
  return {'ok'}
end
drop(KEYS[2], change.totals_gone)
for _, number in ipairs(change.peers_gone) do
  redis.call('DEL', change.peers_prefix .. number)
end
drop(KEYS[3], change.applied_gone)
drop(KEYS[5], change.history_gone)
local latest = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if not latest or latest[1] ~= change.position then
  redis.call('XADD', KEYS[4], change.position, 'tick', change.tick)
end
redis.call('XTRIM', KEYS[4], 'MINID', change.oldest_tick)
redis.call('XTRIM', KEYS[6], 'MINID', change.read_to)
-- As in renew.lua: what comes next must not lie before what was read.
if type(redis.pcall('XADD', KEYS[6], change.read_to, 'end', '')) == 'string' then
  redis.call('XDEL', KEYS[6], change.read_to)
end
-- Last: a script that ended half-way, because a right was taken from its user, is carried out again.
redis.call('HSET', KEYS[2], 'writer', ARGV[1], 'position', change.position)
return {'ok'}
