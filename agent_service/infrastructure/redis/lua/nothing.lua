-- KEYS[1]: any key. Reads it, to find out whether scripts may.
return redis.call('GET', KEYS[1])
