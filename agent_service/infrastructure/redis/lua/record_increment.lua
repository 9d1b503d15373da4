-- ARGV[first]: a field, 0 where it is missing. ARGV[first + 1]: an amount as JSON. Returns the sum as JSON; 0 if the
-- field holds no number, 1 if the sum would be none of 64 bits.
-- A Lua number is a double, as a Python float is, so floats add up as they do there; integers are left to HINCRBY.
local field, amount = ARGV[first], ARGV[first + 1]
local number = redis.call('HGET', record, field) or '0'
if not string.find(number, '^%-?%d') then
  return 0
end
if string.find(number .. amount, '^[%d-]+$') then
  local sum = redis.pcall('HINCRBY', record, field, amount)
  if type(sum) ~= 'table' then
    return written(redis.call('HGET', record, field))
  end
  return (string.find(sum.err, 'overflow') or string.find(sum.err, 'not an integer')) and 1 or sum
end
local sum = tonumber(number) + tonumber(amount)
if sum - sum ~= 0 then -- an infinity
  return 1
end
local text
for digits = 15, 17 do
  text = string.format('%.' .. digits .. 'g', sum)
  if tonumber(text) == sum then
    break
  end
end
if not string.find(text, '[.e]') then
  text = text .. '.0'
end
redis.call('HSET', record, field, text)
return written(text)
