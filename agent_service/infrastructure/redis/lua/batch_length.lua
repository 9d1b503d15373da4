-- Returns how many unclaimed items there are.
take_back()
return settled(redis.call('LLEN', items))
