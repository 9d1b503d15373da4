-- What a key holds as a string; false where there is none, and where somebody else put another type of value there.
local function held(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value
end

