-- KEYS[1]: the sorted set of records whose field held a value. KEYS[2...]: some of these records. ARGV[1]: the field.
-- ARGV[2]: the JSON of the value. ARGV[3...]: the records' names in the set, in the same order.
-- Removes those from the set that hold another value by now, or are gone.
for position = 2, #KEYS do
  if redis.call('HGET', KEYS[position], ARGV[1]) ~= ARGV[2] then
    redis.call('ZREM', KEYS[1], ARGV[position + 1])
  end
end
return 1
