-- ARGV[3], ARGV[4]: first and last position, as LRANGE has them. Returns those items.
take_back()
return settled(redis.call('LRANGE', items, ARGV[3], ARGV[4]))
