-- ARGV[4]: an identifier. ARGV[5]: the token of its claim. Returns 1; 0 if it was set anew, deleted or claimed again.
if not claimed_with(ARGV[4], ARGV[5]) then
  return 0
end
drop(ARGV[4])
return settled(1)
