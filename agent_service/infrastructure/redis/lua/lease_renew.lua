-- KEYS: the names of one lease. ARGV[1]: its token. ARGV[2]: milliseconds it lives from now on; 0: it ends.
-- Returns 0 if one of the names holds another lease, or none: then it is not valid, and is not prolonged.
local stands = 1
for _, key in ipairs(KEYS) do
  if held(key) ~= ARGV[1] then
    stands = 0
  elseif ARGV[2] == '0' then
    redis.call('DEL', key)
  end
end
if stands == 1 and ARGV[2] ~= '0' then
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, ARGV[2])
  end
end
return stands
