-- A reader takes a lease. ARGV[2]: milliseconds it is valid. Returns 0 while a writer is under way.
if writers > 0 or overlap then
  return 0
end
enter('r' .. token)
return 1
