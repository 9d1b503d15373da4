-- KEYS: the names of one lease; the first says whether it stands. ARGV[1]: a token. ARGV[2]: milliseconds. ARGV[3]: what to
-- do with a lease that stands: 'share' it and prolong it, 'leave' it as it is, 'break' it and take it. Gives the token of
-- the lease that stands in the end. A name that was broken is not set again under a token that stood before. What stands
-- without a time to live, which nobody here wrote, gets one: whoever waits for it must not wait for ever.
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
