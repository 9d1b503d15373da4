-- First part of every script on a queue of a batch. The script itself ends with `return settled(reply)`.
-- KEYS[1]: its unclaimed items, a list. KEYS[2]: its claims, scored by the millisecond they end at, each 32 characters
-- of id followed by the item. KEYS[3]: the tenant's queues that hold anything. KEYS[4]: the tenants that have such a
-- queue.
-- ARGV[1]: the queue's name in KEYS[3]. ARGV[2]: the tenant's name in KEYS[4]. ARGV[3...] belongs to the script.
local items, claims, queues, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Puts the items of claims that ended back at the head, in the order in which they were claimed.
local function take_back()
  local ended = redis.call('ZRANGEBYSCORE', claims, '-inf', now)
  for position = #ended, 1, -1 do
    redis.call('LPUSH', items, string.sub(ended[position], 33))
  end
  redis.call('ZREMRANGEBYSCORE', claims, '-inf', now)
end

local function settled(reply)
  if redis.call('EXISTS', items, claims) == 0 then
    redis.call('SREM', queues, ARGV[1])
  else
    redis.call('SADD', queues, ARGV[1])
    redis.call('SADD', pending, ARGV[2])
  end
  return reply
end

