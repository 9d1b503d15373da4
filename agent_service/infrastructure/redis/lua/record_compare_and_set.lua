-- ARGV[first]: a field. ARGV[first + 1]: the JSON it must hold, where null also means that it is missing.
-- ARGV[first + 2]: the JSON to put in its place. Returns 1, or what the field holds instead.
local field, expected = ARGV[first], ARGV[first + 1]
local held = redis.call('HGET', record, field) or 'null'
if held ~= expected then
  return held
end
redis.call('HSET', record, field, ARGV[first + 2])
return written(1)
