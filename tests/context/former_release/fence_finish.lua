-- A writer finishes. ARGV[2]: milliseconds the record lives. ARGV[3...]: fields and their JSON in turn; none: uncache.
-- Gives 1 where the record was stored.
local mine = redis.call('ZREM', fence, 'w' .. token)
if mine == 1 and writers == 1 and not overlap and #ARGV > 2 then
  store(3)
  return 1
end
break_leases()
redis.call('DEL', record)
if writers - mine == 0 then
  redis.call('ZREM', fence, 'x')
end
return 0
