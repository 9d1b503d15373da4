-- KEYS: records. ARGV[1]: milliseconds they live; 0: they do not expire. Then for each record how many arguments it has,
-- and those: fields and their JSON in turn. Puts the records in the place of any others.
local lifetime, at = tonumber(ARGV[1]), 2
for _, record in ipairs(KEYS) do
  local last = at + tonumber(ARGV[at])
  redis.call('DEL', record)
  for from = at + 1, last, 1000 do -- unpack() takes some 8000 at most
    redis.call('HSET', record, unpack(ARGV, from, math.min(from + 999, last)))
  end
  if lifetime > 0 then
    redis.call('PEXPIRE', record, lifetime)
  end
  at = last + 1
end
return 1
