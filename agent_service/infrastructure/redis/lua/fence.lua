-- The beginning of every script about a fenced record, a cached hash that must not hold what the database no longer says.
-- KEYS[1]: the record. KEYS[2]: its fence, a sorted set scored by the milliseconds of Unix time at which a member is
-- void: 'w' + token is a writer under way, 'r' + token a reader's lease, 'x' says that writers overlapped.
-- ARGV[1]: a token. ARGV[2]: milliseconds; the rest belongs to the script.
local record, fence, token, milliseconds = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', fence, '-inf', now)

local writers, readers, overlap = 0, {}, false
for _, member in ipairs(redis.call('ZRANGE', fence, 0, -1)) do
  local kind = string.sub(member, 1, 1)
  if kind == 'w' then
    writers = writers + 1
  elseif kind == 'r' then
    readers[#readers + 1] = member
  else
    overlap = true
  end
end

local function enter(member)
  redis.call('ZADD', fence, now + milliseconds, member)
  redis.call('PEXPIRE', fence, milliseconds)
end

local function break_leases()
  for _, member in ipairs(readers) do
    redis.call('ZREM', fence, member)
  end
end

-- Fields and their JSON stand in ARGV from `first` on; milliseconds is how long the record lives, 0: for ever.
local function store(first)
  redis.call('DEL', record)
  for from = first, #ARGV, 1000 do -- unpack() takes some 8000 at most
    redis.call('HSET', record, unpack(ARGV, from, math.min(from + 999, #ARGV)))
  end
  if milliseconds > 0 then
    redis.call('PEXPIRE', record, milliseconds)
  end
end
