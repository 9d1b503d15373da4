-- ARGV[3]: an item. Returns how many unclaimed items there are then.
take_back()
return settled(redis.call('RPUSH', items, ARGV[3]))
