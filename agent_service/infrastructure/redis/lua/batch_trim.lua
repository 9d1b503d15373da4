-- ARGV[3], ARGV[4]: first and last position to keep, as LTRIM has them. Returns how many items were dropped.
take_back()
local before = redis.call('LLEN', items)
redis.call('LTRIM', items, ARGV[3], ARGV[4])
return settled(before - redis.call('LLEN', items))
