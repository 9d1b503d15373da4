-- KEYS[...]: the tenants of an action each, scored by the millisecond of their earliest trigger.
-- Returns for each key the tenants that have a due one, then the milliseconds until the next one of all, -1 if there is
-- none, and at last how many tenants have any, summed over the keys. A key with another type of value has none.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply, wait, waiting = {}, -1, 0
for position, key in ipairs(KEYS) do
  reply[position] = {}
  local following = (unless_other_type('ZRANGE', key, 0, 0, 'WITHSCORES') or {})[2]
  if following then
    waiting = waiting + redis.call('ZCARD', key)
  end
  if following and following - now <= 0 then
    reply[position] = redis.call('ZRANGEBYSCORE', key, '-inf', now)
    following = redis.call('ZRANGEBYSCORE', key, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  end
  if following and (wait == -1 or following - now < wait) then
    wait = following - now
  end
end
reply[#reply + 1] = wait
reply[#reply + 1] = waiting
return reply
