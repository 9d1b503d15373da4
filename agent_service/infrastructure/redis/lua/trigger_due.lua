-- KEYS[...]: the tenants of an action each, scored by the millisecond of their earliest trigger.
-- ARGV: milliseconds after which a trigger that is due and was not claimed is late.
-- Returns for each key the tenants that have a due one; then the milliseconds until the next one of all, -1 if there is
-- none; then, summed over the keys, how many tenants have any, and how many a late one. A key with another type of value
-- has none.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply, wait, waiting, late = {}, -1, 0, 0
for position, key in ipairs(KEYS) do
  reply[position] = {}
  local following = (unless_other_type('ZRANGE', key, 0, 0, 'WITHSCORES') or {})[2]
  if following then
    waiting = waiting + redis.call('ZCARD', key)
  end
  if following and following - now <= 0 then
    reply[position] = redis.call('ZRANGEBYSCORE', key, '-inf', now)
    late = late + redis.call('ZCOUNT', key, '-inf', now - ARGV[1])
    following = redis.call('ZRANGEBYSCORE', key, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  end
  if following and (wait == -1 or following - now < wait) then
    wait = following - now
  end
end
for _, number in ipairs({wait, waiting, late}) do
  reply[#reply + 1] = number
end
return reply
