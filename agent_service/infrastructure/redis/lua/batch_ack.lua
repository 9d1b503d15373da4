-- ARGV[3...]: claims to remove.
-- Returns how many were still valid; the items of the others went back, or to another consumer.
local removed = 0
for from = 3, #ARGV, 1000 do
  removed = removed + redis.call('ZREM', claims, unpack(ARGV, from, math.min(from + 999, #ARGV)))
end
return settled(removed)
