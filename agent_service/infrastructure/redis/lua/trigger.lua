-- The beginning of every script on the triggers of one tenant and action. A script that changes them ends with
-- `return settled(reply)`. Times are milliseconds since 1970 by the server's clock.
-- KEYS[1]: identifiers, scored by when each may be claimed: its due time, the next attempt, or the end of its lease.
-- KEYS[2]: for each identifier 'due attempts token'; the token is '-' while nobody handles it.
-- KEYS[3]: dead ones, 'due attempts died error' each.
-- KEYS[4]: the action's tenants, scored by their earliest. KEYS[5]: actions that have any. KEYS[6]: the tenant's actions.
-- ARGV[1]: the tenant's name in KEYS[4]. ARGV[2]: the action's in KEYS[5] and KEYS[6]. ARGV[3...] belongs to the script.
local schedule, state, dead, tenants, actions, own = unpack(KEYS)
local tenant, action = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function read(identifier)
  return string.match(redis.call('HGET', state, identifier) or '', '^(%S+) (%S+) (%S+)$')
end

-- Gives due time and attempts where the token's claim still holds, else nothing.
local function claimed_with(identifier, token)
  local due, attempts, held = read(identifier)
  if held == token then
    return due, attempts
  end
end

local function put(identifier, ready, due, attempts, token)
  redis.call('ZADD', schedule, ready, identifier)
  redis.call('HSET', state, identifier, due .. ' ' .. attempts .. ' ' .. token)
end

local function drop(identifier)
  redis.call('HDEL', state, identifier)
  return redis.call('ZREM', schedule, identifier)
end

local function bury(identifier, due, attempts, error)
  drop(identifier)
  redis.call('HSET', dead, identifier, due .. ' ' .. attempts .. ' ' .. now .. ' ' .. error)
end

local function settled(reply)
  local earliest = redis.call('ZRANGE', schedule, 0, 0, 'WITHSCORES')[2]
  if earliest then
    redis.call('ZADD', tenants, earliest, tenant)
    redis.call('SADD', actions, action)
  else
    redis.call('ZREM', tenants, tenant)
    if redis.call('EXISTS', tenants) == 0 then
      redis.call('SREM', actions, action)
    end
  end
  redis.call((earliest or redis.call('EXISTS', dead) == 1) and 'SADD' or 'SREM', own, action)
  return reply
end

