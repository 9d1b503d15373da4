-- KEYS[1]: an entry. KEYS[2...]: the names of the lease under which it was loaded.
-- ARGV[1]: the lease's token. ARGV[2]: the value. ARGV[3]: milliseconds it lives; 0: for ever.
-- Returns 0, nothing stored, if a name was broken. The lease ends.
for place = 2, #KEYS do
  if held(KEYS[place]) ~= ARGV[1] then
    return 0
  end
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
redis.call('DEL', unpack(KEYS, 2))
return 1
