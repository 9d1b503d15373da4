-- A reader fills. ARGV[2]: milliseconds the record lives. ARGV[3...]: fields and their JSON in turn.
-- Returns 0 if the lease was broken or is over.
if leave('r' .. token) < #KEYS - 1 then
  return 0
end
store(3)
return 1
