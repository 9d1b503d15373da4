-- Changes nothing but the time to live. Returns 1; 0 if there is no record.
if redis.call('EXISTS', record) == 0 then
  return 0
end
return written(1)
