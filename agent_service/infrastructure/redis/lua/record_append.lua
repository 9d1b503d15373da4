-- ARGV[first]: a field. ARGV[first + 1]: the JSON of an item for its list. Returns 1; 0 if the field holds no list.
local field, item = ARGV[first], ARGV[first + 1]
local list = redis.call('HGET', record, field)
if not list or list == '[]' then
  list = '[' .. item .. ']'
elseif string.sub(list, 1, 1) == '[' then
  list = string.sub(list, 1, -2) .. ',' .. item .. ']'
else
  return 0
end
redis.call('HSET', record, field, list)
return written(1)
