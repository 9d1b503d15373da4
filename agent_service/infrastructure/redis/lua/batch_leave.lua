-- KEYS[1]: the tenant's queues that hold anything. KEYS[2]: the tenants that have such a queue.
-- ARGV[1]: the tenant's name there.
-- Returns 1 if the tenant is not among them any more, 0 if it stays because a queue holds items or claims.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('SREM', KEYS[2], ARGV[1])
return 1
