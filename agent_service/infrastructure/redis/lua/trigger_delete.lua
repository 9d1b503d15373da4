-- ARGV[3]: an identifier, waiting or dead. Gives 1, or 0 where there was none.
local waiting = drop(ARGV[3])
return settled(math.max(waiting, redis.call('HDEL', dead, ARGV[3])))
