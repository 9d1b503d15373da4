-- Returns the reply to a command; false where the key holds another type of value, which another program stored. Other
-- errors, a denial for instance, are raised.
local function unless_other_type(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    return not string.find(reply.err, 'WRONGTYPE', 1, true) and redis.call(...)
  end
  return reply
end

local function held(key)
  return unless_other_type('GET', key)
end

