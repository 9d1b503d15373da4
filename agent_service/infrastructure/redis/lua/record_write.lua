-- The beginning of every script that writes a record: a hash whose fields hold JSON. The script itself ends with
-- `return written(reply)` where it changed the record. Data is never decoded: cjson would make {} of [].
-- KEYS[1]: the record. KEYS[2], if ARGV[3] is '1': the set that lists it. Then, for each indexed field, what the keys of
-- its index begin with; the SHA-1 of a value's JSON follows.
-- ARGV[1]: milliseconds the record lives from now on; 0: as before. ARGV[2]: the record's name in those sets.
-- ARGV[4...]: the indexed fields. ARGV[first...] belongs to the script.
local record, lifetime, name, listed = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local first = 3 + #KEYS - listed

-- Puts the record into a set that lives at least as long as it does.
local function enter(set)
  local left = redis.call('PTTL', set)
  redis.call('SADD', set, name)
  if lifetime == 0 then
    redis.call('PERSIST', set)
  elseif left ~= -1 and left < lifetime then
    redis.call('PEXPIRE', set, lifetime)
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

