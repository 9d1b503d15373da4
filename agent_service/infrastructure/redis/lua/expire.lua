-- KEYS[1]: an entry.
-- ARGV[1]: its head. ARGV[2]: where in it the stamp of staleness begins; -1: it has none. ARGV[3]: the new stamp.
-- ARGV[4]: milliseconds it lives from now on; 0: for ever.
-- Returns 0, nothing changed, if the entry has another head, or is gone.
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then
  return 0
end
if ARGV[2] ~= '-1' then
  redis.call('SETRANGE', KEYS[1], ARGV[2], ARGV[3])
end
if ARGV[4] == '0' then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 1
