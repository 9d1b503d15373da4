-- ARGV[4]: a token that no other call has. ARGV[5]: how many at most. ARGV[6]: milliseconds of lease. ARGV[7]: attempts
-- one may have.
-- Returns the claimed ones as {identifier, due, attempt}, and the identifiers that are dead now: after too many
-- attempts, or because another program wrote their state.
local claimed, died = {}, {}
for _, identifier in ipairs(redis.call('ZRANGEBYSCORE', schedule, '-inf', now, 'LIMIT', 0, ARGV[5])) do
  local due, attempts = read(identifier)
  if not due then
    bury(identifier, now, 0, 'its state was written by somebody else')
    died[#died + 1] = identifier
  elseif tonumber(attempts) < tonumber(ARGV[7]) then
    put(identifier, now + ARGV[6], due, attempts + 1, ARGV[4])
    claimed[#claimed + 1] = {identifier, due, attempts + 1}
  else
    bury(identifier, due, attempts, 'its worker ended or lost its lease')
    died[#died + 1] = identifier
  end
end
return settled({claimed, died})
