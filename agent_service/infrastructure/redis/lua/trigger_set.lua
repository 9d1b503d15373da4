-- ARGV[4]: an identifier. ARGV[5]: milliseconds from now, rounded up, to its due time. A runner that handles it loses
-- its claim.
local due = math.ceil(time[1] * 1000 + time[2] / 1000) + ARGV[5]
redis.call('HDEL', dead, ARGV[4])
put(ARGV[4], due, due, 0, '-')
return settled(1)
