-- KEYS[1]: an entry. KEYS[2]: the lease under which it was loaded. ARGV[1]: the lease's token. ARGV[2]: the value.
-- ARGV[3]: milliseconds it lives; 0: for ever. Gives 0, nothing stored, where the lease was broken. The lease ends.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
redis.call('DEL', KEYS[2])
return 1
