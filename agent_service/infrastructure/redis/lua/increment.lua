-- KEYS[1]: a counter. KEYS[2...]: the names of a lease that the change breaks; then, if ARGV[6] is given, the numbers
-- of this caller's latest changes.
-- ARGV[1]: an integer to add. ARGV[2]: milliseconds a new counter lives; 0: forever, < 0: not stored. ARGV[3]: the head
-- of a valid counter. ARGV[4]: how stored bytes begin that are not valid, or ''. ARGV[5]: the head of a new counter.
-- Where changes are remembered, ARGV[6]: the number of this change, ARGV[7]: the lowest number that may be sent again,
-- ARGV[8]: milliseconds to remember them.
-- Returns the new value as text: a Lua number would lose digits beyond 2^53.
-- Returns {what is stored}, nothing changed, if that begins like neither and is not empty. A change whose number is
-- known with the same new head is not made again. A counter that exists keeps its time to live; a value that is no
-- 64-bit integer, or would become none, is an error and stays as it is.
local function begins(text, head)
  return string.sub(text, 1, #head) == head
end

local stored = held(KEYS[1])
if stored and not begins(stored, ARGV[3]) then
  if stored ~= '' and (ARGV[4] == '' or not begins(stored, ARGV[4])) then
    return {string.sub(stored, 1, 512)}
  end
  stored = false
end
local digits = stored and string.sub(stored, #ARGV[3] + 1) or '0'

local leases = #KEYS
if ARGV[6] then
  local changes = KEYS[#KEYS]
  leases = #KEYS - 1
  if not unless_other_type('ZREMRANGEBYSCORE', changes, '-inf', '(' .. ARGV[7]) then
    redis.call('DEL', changes)
  end
  if redis.call('ZADD', changes, ARGV[6], ARGV[6] .. ARGV[5]) == 0 then
    return digits
  end
  redis.call('PEXPIRE', changes, ARGV[8])
end
for place = 2, leases do
  redis.call('DEL', KEYS[place])
end

local lifetime = tonumber(ARGV[2])
if not stored then
  redis.call('DEL', KEYS[1])
  if lifetime < 0 then
    return ARGV[1]
  elseif lifetime == 0 then
    redis.call('SET', KEYS[1], ARGV[5] .. ARGV[1])
  else
    redis.call('SET', KEYS[1], ARGV[5] .. ARGV[1], 'PX', ARGV[2])
  end
  return ARGV[1]
end
redis.call('SET', KEYS[1], digits, 'KEEPTTL')
local added = redis.pcall('INCRBY', KEYS[1], ARGV[1])
local value = redis.call('GET', KEYS[1])
if type(added) == 'table' then
  redis.call('SET', KEYS[1], stored, 'KEEPTTL')
  return added
end
redis.call('SET', KEYS[1], ARGV[3] .. value, 'KEEPTTL')
return value
