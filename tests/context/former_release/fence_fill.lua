-- A reader fills. ARGV[2]: milliseconds the record lives. ARGV[3...]: fields and their JSON in turn.
-- Gives 0 where the lease was broken or is over.
if redis.call('ZREM', fence, 'r' .. token) == 0 then
  return 0
end
store(3)
return 1
