-- A writer begins. ARGV[2]: milliseconds it counts as under way.
break_leases()
enter('w' .. token)
if writers > 0 or overlap then
  note_overlap()
end
redis.call('DEL', record)
return 1
