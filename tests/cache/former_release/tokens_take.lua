-- KEYS: tokens. ARGV[1]: milliseconds an entry with them will live; 0: for ever. ARGV[2...]: random bytes, one a key.
-- Gives the tokens, in order; the random bytes where there was none. A token outlives every entry that holds it: it is
-- prolonged to twice the entry's life, at least an hour, when it would not.
local needed = tonumber(ARGV[1])
local lifetime = string.format('%.0f', math.max(2 * needed, 3600000))
local tokens = {}
for place, key in ipairs(KEYS) do
  local token = redis.call('GET', key)
  if not token then
    token = ARGV[place + 1]
    redis.call('SET', key, token, 'PX', lifetime)
  end
  local left = redis.call('PTTL', key)
  if needed == 0 and left ~= -1 then
    redis.call('PERSIST', key)
  elseif left ~= -1 and left < needed then
    redis.call('PEXPIRE', key, lifetime)
  end
  tokens[place] = token
end
return tokens
