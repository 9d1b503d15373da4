-- KEYS[1]: a lease. ARGV[1]: a token. ARGV[2]: milliseconds. ARGV[3]: what to do with a lease that stands: 'share' it and
-- prolong it, 'leave' it as it is, 'break' it and take it. Gives the token of the lease that stands in the end.
local standing = ARGV[3] ~= 'break' and redis.call('GET', KEYS[1])
if not standing then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return ARGV[1]
end
if ARGV[3] == 'share' then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return standing
