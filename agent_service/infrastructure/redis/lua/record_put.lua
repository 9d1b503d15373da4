-- ARGV[first]: 'replace', 'merge', or 'read' to merge and return what HGETALL returns. Then fields and their JSON in
-- turn.
if ARGV[first] == 'replace' then
  redis.call('DEL', record)
end
for from = first + 1, #ARGV, 1000 do -- unpack() takes some 8000 at most
  redis.call('HSET', record, unpack(ARGV, from, math.min(from + 999, #ARGV)))
end
return written(ARGV[first] == 'read' and redis.call('HGETALL', record) or 1)
