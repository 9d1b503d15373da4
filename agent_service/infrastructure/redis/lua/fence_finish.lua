-- A writer finishes. ARGV[2]: milliseconds the record lives. ARGV[3...]: fields and their JSON in turn; none: uncache.
-- Returns 1 if the record was stored.
local stood = leave('w' .. token)
if stood == #KEYS - 1 and writers == 1 and not overlap and #ARGV > 2 then
  store(3)
  return 1
end
break_leases()
redis.call('DEL', record)
if writers - math.min(stood, 1) == 0 then
  leave('x')
end
return 0
