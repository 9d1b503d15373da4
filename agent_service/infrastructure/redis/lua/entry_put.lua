-- KEYS[1]: an entry. KEYS[2...]: the names of its lease, which ends with this: what is being loaded under it is older.
-- ARGV[1]: the value. ARGV[2]: milliseconds it lives; 0: for ever.
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return redis.call('DEL', unpack(KEYS, 2))
