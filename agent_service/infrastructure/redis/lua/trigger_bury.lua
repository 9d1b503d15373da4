-- ARGV[3]: an identifier. ARGV[4]: the token of its claim. ARGV[5]: what killed it. Gives 1; 0 where it was set anew,
-- deleted or claimed again.
local due, attempts = claimed_with(ARGV[3], ARGV[4])
if not due then
  return 0
end
bury(ARGV[3], due, attempts, ARGV[5])
return settled(1)
