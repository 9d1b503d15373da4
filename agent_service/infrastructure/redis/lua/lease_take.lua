-- KEYS: the names of one lease; the first says whether it is valid.
-- ARGV[1]: a token. ARGV[2]: milliseconds. ARGV[3]: what to do with a valid lease: 'share' it and prolong it, 'leave'
-- it as it is, 'break' it and take it.
-- Returns the token of the lease that is valid afterwards. A name that was broken is not set again with the token of an
-- earlier lease. A lease without a time to live, which another program stored, gets one: nobody must wait for it for
-- ever.
local standing = ARGV[3] ~= 'break' and held(KEYS[1])
if not standing then
  for _, key in ipairs(KEYS) do
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
  end
  return ARGV[1]
end
if ARGV[3] == 'share' then
  for _, key in ipairs(KEYS) do
    if held(key) == standing then
      redis.call('PEXPIRE', key, ARGV[2])
    end
  end
end
if redis.call('PTTL', KEYS[1]) == -1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return standing
