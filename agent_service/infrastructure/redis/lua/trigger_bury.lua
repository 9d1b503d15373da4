-- ARGV[4]: an identifier. ARGV[5]: the token of its claim. ARGV[6]: why it failed. Returns 1; 0 if it was set anew,
-- deleted or claimed again.
local due, attempts = claimed_with(ARGV[4], ARGV[5])
if not due then
  return 0
end
bury(ARGV[4], due, attempts, ARGV[6])
return settled(1)
