-- KEYS: records.
-- ARGV[1]: milliseconds they live; 0: they do not expire. Then for each record how many arguments it has, and those:
-- fields and their JSON in turn.
-- Stores the records, replacing any others.
local call, lifetime, at = redis.call, tonumber(ARGV[1]), 2
for _, record in ipairs(KEYS) do
  local last = at + ARGV[at]
  call('DEL', record)
  for from = at + 1, last, 1000 do -- unpack() takes some 8000 at most
    call('HSET', record, unpack(ARGV, from, from + 999 < last and from + 999 or last))
  end
  if lifetime > 0 then
    call('PEXPIRE', record, lifetime)
  end
  at = last + 1
end
return 1
