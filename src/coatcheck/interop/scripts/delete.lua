-- Deletes what is there under an ID, and returns it.
--
-- KEYS[1]  the session as Go knows it
-- KEYS[2]  what stands in the place of a session that has moved

local found = redis.call('MGET', KEYS[1], KEYS[2])
redis.call('DEL', KEYS[1], KEYS[2])
return found
