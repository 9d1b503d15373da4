-- ARGV[first...]: fields to delete.
-- Returns how many there were. A record that loses its last field stays, empty: the field '\255', which no name in
-- UTF-8 can be, keeps it.
if redis.call('EXISTS', record) == 0 then
  return 0
end
redis.call('HSET', record, '\255', '')
local deleted = 0
for from = first, #ARGV, 1000 do
  deleted = deleted + redis.call('HDEL', record, unpack(ARGV, from, math.min(from + 999, #ARGV)))
end
return written(deleted)
