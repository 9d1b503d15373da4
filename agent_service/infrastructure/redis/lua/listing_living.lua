-- KEYS[1]: a sorted set that lists records. KEYS[2...]: the records. ARGV: their names in the set, in the same order.
-- Takes the names of records that are gone (expired, most likely) out of the set and gives the others.
local living = {}
for position, name in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[position + 1]) == 1 then
    living[#living + 1] = name
  else
    redis.call('ZREM', KEYS[1], name)
  end
end
return living
