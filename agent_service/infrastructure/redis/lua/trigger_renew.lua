-- ARGV[3]: an identifier. ARGV[4]: the token of its claim. ARGV[5]: milliseconds of lease from now on. Gives 1; 0 where it
-- was set anew, deleted or claimed again.
if not claimed_with(ARGV[3], ARGV[4]) then
  return 0
end
redis.call('ZADD', schedule, now + ARGV[5], ARGV[3])
return settled(1)
