-- Lets time pass for all that a database of Redis holds, milliseconds of ARGV[1]. For tests: it looks at every key.
-- What would have expired is deleted. Sorted sets whose scores are milliseconds since 1970 (those of triggers, batches,
-- listings and fences) move as much into the past. An entry in each stream wakes those who wait for a moment.
local passed = tonumber(ARGV[1])
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left, kind = redis.call('PTTL', key), redis.call('TYPE', key)['ok']
  if left >= 0 and left <= passed then
    redis.call('DEL', key)
  else
    if left >= 0 then
      redis.call('PEXPIRE', key, left - passed)
    end
    if kind == 'zset' then
      local pairs_of = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
      for place = 1, #pairs_of, 2 do
        local score = tonumber(pairs_of[place + 1])
        if score and score > 1e12 and score < 1e13 then
          redis.call('ZADD', key, string.format('%.0f', score - passed), pairs_of[place])
        end
      end
    elseif kind == 'stream' then
      redis.call('XADD', key, 'MAXLEN', 1, '*', 'at', passed)
    end
  end
end
