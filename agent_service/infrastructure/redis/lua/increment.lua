-- KEYS[1]: a counter. KEYS[2], where given: a lease that the change breaks. ARGV[1]: an integer to add.
-- ARGV[2]: milliseconds a new counter lives; 0: forever, < 0: not stored.
-- Gives the new value as text: a Lua number would lose digits beyond 2^53. A counter that exists keeps its time to
-- live; what is no 64-bit integer, or would become none, is an error and stays as it is.
if KEYS[2] then
  redis.call('DEL', KEYS[2])
end
local lifetime = tonumber(ARGV[2])
local existed = redis.call('EXISTS', KEYS[1]) == 1
redis.call('INCRBY', KEYS[1], ARGV[1])
local value = redis.call('GET', KEYS[1])
if not existed and lifetime > 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif not existed and lifetime < 0 then
  redis.call('DEL', KEYS[1])
end
return value
