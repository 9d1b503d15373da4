-- Return the values whose time is not over.
-- KEYS: a hash of the values, a sorted set of the names by the millisecond at which they end.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local names = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now, '+inf')
if #names == 0 then
  return {}
end
return redis.call('HMGET', KEYS[1], unpack(names))
