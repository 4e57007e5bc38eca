-- Returns how long each of the keys still lives, in milliseconds; negative for one that is not there.

local left = {}
for position, key in ipairs(KEYS) do
  left[position] = redis.call('PTTL', key)
end
return left
