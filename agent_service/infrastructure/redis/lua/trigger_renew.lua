-- ARGV[4]: an identifier. ARGV[5]: the token of its claim. ARGV[6]: milliseconds of lease from now on.
-- Returns 1; 0 if it was set anew, deleted or claimed again.
if not claimed_with(ARGV[4], ARGV[5]) then
  return 0
end
redis.call('ZADD', schedule, now + ARGV[6], ARGV[4])
return settled(1)
