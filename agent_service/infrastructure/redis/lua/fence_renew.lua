-- A writer renews. ARGV[2]: milliseconds from now for which it counts as under way.
-- Returns 0 if it did not count any more: others may have read, cached or written since, so it begins again as one of
-- several that overlap.
local mine, stood = 'w' .. token, 0
for place = 2, #KEYS do
  if redis.call('ZSCORE', KEYS[place], mine) then
    stood = stood + 1
  end
end
local stands = stood == #KEYS - 1
if not stands then
  break_leases()
  redis.call('DEL', record)
end
enter(mine)
if overlap or not stands then
  note_overlap()
end
return stands and 1 or 0
