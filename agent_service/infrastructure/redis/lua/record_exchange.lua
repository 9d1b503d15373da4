-- KEYS[1]: a record.
-- ARGV[1]: milliseconds the new record lives; 0: it does not expire. ARGV[2]: how many fields the present record must
-- hold among its own, -1: there must be no record. Then those fields and their JSON in turn, then the new record's.
-- Replaces the present record by the new one, or removes it where no new fields are given, and returns 1.
-- Returns 0 if the present record is not as expected; if it has the fields and only their JSON differs, that JSON.
local record, expected = KEYS[1], tonumber(ARGV[2])
if (expected < 0) ~= (redis.call('EXISTS', record) == 0) then
  return 0
end
local first = 3 + 2 * math.max(expected, 0)
local held, same = {}, true
for at = 3, first - 1, 2 do
  local json = redis.call('HGET', record, ARGV[at])
  if not json then
    return 0
  end
  held[#held + 1] = json
  same = same and json == ARGV[at + 1]
end
if not same then
  return held
end
redis.call('DEL', record)
for from = first, #ARGV, 1000 do -- unpack() takes some 8000 at most
  redis.call('HSET', record, unpack(ARGV, from, math.min(from + 999, #ARGV)))
end
if ARGV[1] ~= '0' then
  redis.call('PEXPIRE', record, ARGV[1])
end
return 1
