-- KEYS[1]: a sorted set that lists records. KEYS[2...]: the records. ARGV: their names in the set, in the same order.
-- Removes the names of records that are gone (expired, most likely) from the set and returns the others.
local living = {}
for position, name in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[position + 1]) == 1 then
    living[#living + 1] = name
  else
    redis.call('ZREM', KEYS[1], name)
  end
end
return living
