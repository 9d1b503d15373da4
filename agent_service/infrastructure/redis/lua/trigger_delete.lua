-- ARGV[4]: an identifier, waiting or dead. Returns 1, or 0 if there was none.
local waiting = drop(ARGV[4])
return settled(math.max(waiting, redis.call('HDEL', dead, ARGV[4])))
