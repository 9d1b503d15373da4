-- KEYS[1]: a sorted set that lists records. KEYS[2...]: records to delete.
-- ARGV: their names in the set, in the same order.
-- Returns how many of the records there were.
local deleted = 0
for position, name in ipairs(ARGV) do
  deleted = deleted + redis.call('DEL', KEYS[position + 1])
  redis.call('ZREM', KEYS[1], name)
end
return deleted
