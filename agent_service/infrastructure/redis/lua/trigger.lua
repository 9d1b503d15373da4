-- First part of every script on the triggers of one tenant and action. A script that changes them ends with `return
-- settled(reply)`. Times are milliseconds since 1970 by the server's clock.
-- KEYS[1]: identifiers, scored by when each may be claimed: its due time, the next attempt, or the end of its lease.
-- KEYS[2]: for each identifier 'due attempts token'; the token is '-' while no runner handles it. KEYS[3]: dead ones,
-- 'due attempts died error' each. KEYS[4]: the action's tenants, scored by their earliest. KEYS[5]: actions that have
-- any. KEYS[6]: the tenant's actions. KEYS[7]: the stream that wakes runners.
-- ARGV[1]: the tenant's name in KEYS[4]. ARGV[2]: the action's in KEYS[5] and KEYS[6]. ARGV[3]: milliseconds that
-- runners sleep at most. ARGV[4...] belongs to the script.
local schedule, state, dead, tenants, actions, own, wakes = unpack(KEYS)
local tenant, action = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Returns nothing for what none of these scripts wrote.
local function read(identifier)
  local due, attempts, token = string.match(redis.call('HGET', state, identifier) or '', '^(%d+) (%d+) (%S+)$')
  if due and #due < 15 and #attempts < 10 then
    return due, attempts, token
  end
end

-- Returns due time and attempts if the token's claim is still valid, else nothing.
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

-- Wakes the runners. Each polls by itself before the entry expires. The id is never used twice, not even after the
-- stream was deleted; where the clock went back, the server chooses a greater one. Where the server refuses streams to
-- this user, the runners only poll.
local function wake()
  if redis.pcall('XADD', wakes, 'MAXLEN', 1, now .. '-' .. time[2] % 1000, 'at', now).err then
    redis.pcall('XADD', wakes, 'MAXLEN', 1, '*', 'at', now)
  end
  redis.pcall('PEXPIRE', wakes, 6 * ARGV[3])
end

local function settled(reply)
  local earliest = redis.call('ZRANGE', schedule, 0, 0, 'WITHSCORES')[2]
  if earliest then
    -- Every sleeping runner knows the earliest trigger that the tenant had before, or polls before the new one.
    local before = redis.call('ZSCORE', tenants, tenant)
    redis.call('ZADD', tenants, earliest, tenant)
    redis.call('SADD', actions, action)
    if earliest - now < tonumber(ARGV[3]) and (not before or earliest - before < 0) then
      wake()
    end
  else
    redis.call('ZREM', tenants, tenant)
    if redis.call('EXISTS', tenants) == 0 then
      redis.call('SREM', actions, action)
      if redis.call('EXISTS', actions) == 0 then
        redis.call('DEL', wakes)
      end
    end
  end
  redis.call((earliest or redis.call('EXISTS', dead) == 1) and 'SADD' or 'SREM', own, action)
  return reply
end

