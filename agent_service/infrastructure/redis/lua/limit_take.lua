-- Milliseconds of the server's clock throughout.
-- KEYS[1]: a hash with the weight taken in each slot of each window, by "length of the window:number of the slot".
-- ARGV[1]: the weight to take; 0: only look. Then for each window its quota, its length and the length of its slots.
-- Returns {now, 1 if it was taken, how long until it could be taken}, then for each window what is left of it and how
-- long until all of it is back. Nothing is taken of any window unless all have enough.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local weight = tonumber(ARGV[1])

local windows, longest = {}, 0
for place = 2, #ARGV, 3 do
  local window = {
    name = ARGV[place + 1],
    quota = tonumber(ARGV[place]), length = tonumber(ARGV[place + 1]), slot = tonumber(ARGV[place + 2]),
    taken = 0, numbers = {}, weights = {}
  }
  windows[#windows + 1], windows[window.name] = window, window
  longest = math.max(longest, window.length + window.slot)
end

local function back(window, number)
  return (number + 1) * window.slot + window.length - now
end

local fields = unless_other_type('HGETALL', KEYS[1])
if not fields then
  redis.call('DEL', KEYS[1])
  fields = {}
end
for place = 1, #fields, 2 do
  local name, number = string.match(fields[place], '^(%d+):(%d+)$')
  local window, taken = windows[name], tonumber(fields[place + 1])
  number = tonumber(number)
  if window and taken and back(window, number) > 0 then
    window.taken = window.taken + taken
    window.numbers[#window.numbers + 1] = number
    window.weights[number] = taken
  else
    redis.call('HDEL', KEYS[1], fields[place])
  end
end

local wait = 0
for _, window in ipairs(windows) do
  table.sort(window.numbers)
  local missing = window.taken + weight - window.quota
  for _, number in ipairs(window.numbers) do
    if missing <= 0 then
      break
    end
    wait = math.max(wait, back(window, number))
    missing = missing - window.weights[number]
  end
end

local reply = {now, wait == 0 and 1 or 0, wait}
for _, window in ipairs(windows) do
  if wait == 0 and weight > 0 then
    local number = math.floor(now / window.slot)
    redis.call('HINCRBY', KEYS[1], string.format('%s:%d', window.name, number), weight)
    window.taken = window.taken + weight
    window.numbers[#window.numbers + 1] = number
  end
  local last = window.numbers[#window.numbers]
  reply[#reply + 1] = math.max(window.quota - window.taken, 0)
  reply[#reply + 1] = last and back(window, last) or 0
end
if wait == 0 and weight > 0 then
  redis.call('PEXPIRE', KEYS[1], longest)
end
return reply
