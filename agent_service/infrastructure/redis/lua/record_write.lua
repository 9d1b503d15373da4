-- First part of every script that writes a record: a hash whose fields hold JSON. The script itself ends with
-- `return written(reply)` if it changed the record. Data is never decoded: cjson would make {} of [].
-- KEYS[1]: the record. KEYS[2], if ARGV[3] is '1': the sorted set that lists it. Then, for each indexed field, what the
-- keys of its index begin with; the SHA-1 of a value's JSON follows.
-- ARGV[1]: milliseconds the record lives from now on; 0: as before. ARGV[2]: the record's name in those sets.
-- ARGV[4...]: the indexed fields. ARGV[first...] belongs to the script.
local record, lifetime, name, listed = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local first = 3 + #KEYS - listed

-- Adds the record to a sorted set of records, scored by the millisecond at which each expires. Members that expired a
-- second ago are removed, and the set itself expires with the last of them.
local function enter(set)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', now - 1000)
  redis.call('ZADD', set, lifetime == 0 and '+inf' or now + lifetime, name)
  local last = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
  if last == 'inf' then
    redis.call('PERSIST', set)
  else
    redis.call('PEXPIREAT', set, last + 1000)
  end
end

local function written(reply)
  if lifetime > 0 then
    redis.call('PEXPIRE', record, lifetime)
  end
  if listed == 1 then
    enter(KEYS[2])
  end
  for position = 2 + listed, #KEYS do
    local json = redis.call('HGET', record, ARGV[2 + position - listed])
    if json then
      enter(KEYS[position] .. redis.sha1hex(json))
    end
  end
  return reply
end

