-- First part of every script about a fenced record: a cached hash that must not hold what the database no longer holds.
-- KEYS[1]: the record. KEYS[2...]: its fence, under one name or two that hold the same; a sorted set scored by the
-- milliseconds of Unix time at which a member is void: 'w' + token is a writer under way, 'r' + token a reader's lease,
-- 'x' says that writers overlapped. Under two names, a member under either counts against a reader or writer.
-- ARGV[1]: a token. ARGV[2]: milliseconds; the rest belongs to the script.
local record, token, milliseconds = KEYS[1], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local seen, writers, readers, overlap = {}, 0, {}, false
for place = 2, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[place], '-inf', now)
  for _, member in ipairs(redis.call('ZRANGE', KEYS[place], 0, -1)) do
    local kind = string.sub(member, 1, 1)
    if kind == 'x' then
      overlap = true
    elseif not seen[member] and kind == 'w' then
      writers = writers + 1
    elseif not seen[member] then
      readers[#readers + 1] = member
    end
    seen[member] = true
  end
end

local function enter(member)
  for place = 2, #KEYS do
    redis.call('ZADD', KEYS[place], now + milliseconds, member)
    if redis.call('PTTL', KEYS[place]) < milliseconds then -- another writer's may be longer
      redis.call('PEXPIRE', KEYS[place], milliseconds)
    end
  end
end

-- Writers overlap, as far as is known until the last of them is void. After enter().
local function note_overlap()
  for place = 2, #KEYS do
    redis.call('ZADD', KEYS[place], now + redis.call('PTTL', KEYS[place]), 'x')
  end
end

-- Returns under how many names the member was found.
local function leave(member)
  local stood = 0
  for place = 2, #KEYS do
    stood = stood + redis.call('ZREM', KEYS[place], member)
  end
  return stood
end

local function break_leases()
  for _, member in ipairs(readers) do
    leave(member)
  end
end

-- Fields and their JSON are in ARGV from `first` on; milliseconds is how long the record lives, 0: for ever.
local function store(first)
  redis.call('DEL', record)
  for from = first, #ARGV, 1000 do -- unpack() takes some 8000 at most
    redis.call('HSET', record, unpack(ARGV, from, math.min(from + 999, #ARGV)))
  end
  if milliseconds > 0 then
    redis.call('PEXPIRE', record, milliseconds)
  end
end
