-- KEYS[1]: a lease. ARGV[1]: its token. ARGV[2]: milliseconds it lives from now on; 0: it ends.
-- Gives 0 where another lease, or none, stands.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
