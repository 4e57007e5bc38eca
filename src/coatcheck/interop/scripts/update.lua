-- Compare-and-set: replaces a session that still has the very bytes that the writer knows.
--
-- Go's programs write without comparing and know of no revision, so all bytes are compared.
--
-- KEYS[1]  the session as Go knows it
-- KEYS[2]  what stands in the place of a session that has moved
-- ARGV[1]  the bytes that the session must have
-- ARGV[2]  1 if a session takes its place, 2 if it moves
-- ARGV[3]  the new bytes
-- ARGV[4]  their time to live, milliseconds
--
-- Returns 1 if it was replaced, otherwise what is there under both keys. A missing session is not created.

local found = redis.call('MGET', KEYS[1], KEYS[2])
if found[1] ~= ARGV[1] or found[2] then
  return found
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[tonumber(ARGV[2])], ARGV[3], 'PX', ARGV[4])
return 1
