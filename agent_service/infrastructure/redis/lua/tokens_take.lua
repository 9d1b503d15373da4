-- KEYS: tokens by their new names; perhaps then the same by the names that earlier releases know.
-- ARGV[1]: milliseconds an entry with them will live; 0: for ever. ARGV[2...]: random bytes, one a token.
-- Returns the tokens, in order; the random bytes where there was none. Under two names the old one decides, except
-- where the new one holds 9 bytes: that token was made under the new name alone and voids the old one's. A value of
-- another length or type is no token. A token outlives every entry that holds it: it is prolonged to twice the entry's
-- life, at least an hour, when it would not.
local needed, count = tonumber(ARGV[1]), #ARGV - 1
local lifetime = string.format('%.0f', math.max(2 * needed, 3600000))

local function token_at(key)
  local value = held(key)
  return value and (#value == 8 or #value == 9) and value
end

local function prolong(key)
  local left = redis.call('PTTL', key)
  if needed == 0 and left ~= -1 then
    redis.call('PERSIST', key)
  elseif left ~= -1 and left < needed then
    redis.call('PEXPIRE', key, lifetime)
  end
end

local tokens = {}
for place = 1, count do
  local new, old = KEYS[place], KEYS[place + count]
  local own = token_at(new)
  local token = own
  if old then
    token = not (own and #own ~= 8) and token_at(old)
  end
  if not token then
    token = ARGV[place + 1]
    redis.call('SET', new, token, 'PX', lifetime)
    if old then
      redis.call('SET', old, token, 'PX', lifetime)
    end
  elseif token ~= own then
    redis.call('SET', new, token, 'PX', lifetime)
  end
  prolong(new)
  if old then
    prolong(old)
    if redis.call('PTTL', old) == -1 then
      redis.call('PERSIST', new)
    end
  end
  tokens[place] = token
end
return tokens
