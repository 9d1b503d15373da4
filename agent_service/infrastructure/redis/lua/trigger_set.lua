-- ARGV[3]: an identifier. ARGV[4]: milliseconds from now, rounded up, to its due time. Whoever handles it loses his claim.
local due = math.ceil(time[1] * 1000 + time[2] / 1000) + ARGV[4]
redis.call('HDEL', dead, ARGV[3])
put(ARGV[3], due, due, 0, '-')
return settled(1)
