-- A writer begins. ARGV[2]: milliseconds it counts as under way.
break_leases()
if writers > 0 or overlap then
  enter('x')
end
enter('w' .. token)
redis.call('DEL', record)
return 1
