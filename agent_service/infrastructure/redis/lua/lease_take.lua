-- KEYS[1]: a lease. ARGV[1]: a token. ARGV[2]: milliseconds.
-- Gives the token of the lease that stands, prolonged, or takes one with the token given.
local standing = redis.call('GET', KEYS[1])
if standing then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return standing
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
