-- ARGV[3]: an identifier. ARGV[4]: the token of its claim. ARGV[5]: milliseconds to the next attempt. Gives 1; 0 where it
-- was set anew, deleted or claimed again.
local due, attempts = claimed_with(ARGV[3], ARGV[4])
if not due then
  return 0
end
put(ARGV[3], now + ARGV[5], due, attempts, '-')
return settled(1)
