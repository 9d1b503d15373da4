-- KEYS[...]: the tenants of an action each, scored by the millisecond of their earliest trigger.
-- Returns for each key the tenants that have a due one, and at last the milliseconds until the next one of all, -1 if
-- there is none. A key with another type of value has none.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply, wait = {}, -1
for position, key in ipairs(KEYS) do
  reply[position] = {}
  local following = (unless_other_type('ZRANGE', key, 0, 0, 'WITHSCORES') or {})[2]
  if following and following - now <= 0 then
    reply[position] = redis.call('ZRANGEBYSCORE', key, '-inf', now)
    following = redis.call('ZRANGEBYSCORE', key, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  end
  if following and (wait == -1 or following - now < wait) then
    wait = following - now
  end
end
reply[#reply + 1] = wait
return reply
