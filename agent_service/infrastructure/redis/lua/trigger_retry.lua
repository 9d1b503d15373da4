-- ARGV[4]: an identifier. ARGV[5]: the token of its claim. ARGV[6]: milliseconds to the next attempt.
-- Returns 1; 0 if it was set anew, deleted or claimed again.
local due, attempts = claimed_with(ARGV[4], ARGV[5])
if not due then
  return 0
end
put(ARGV[4], now + ARGV[6], due, attempts, '-')
return settled(1)
