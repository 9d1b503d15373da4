-- ARGV[3]: 24 characters that no other call has. ARGV[4]: how many items at most. ARGV[5]: milliseconds for which the
-- claims are valid.
-- Returns the claims: 32 characters of id followed by the item.
take_back()
local taken = redis.call('LPOP', items, ARGV[4]) or {}
for position, item in ipairs(taken) do
  taken[position] = ARGV[3] .. string.format('%08d', position) .. item
  redis.call('ZADD', claims, now + ARGV[5], taken[position])
end
return settled(taken)
