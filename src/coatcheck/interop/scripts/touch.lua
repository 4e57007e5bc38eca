-- Sets the time to live of what is there under an ID, and returns it.
--
-- KEYS[1]  the session as Go knows it
-- KEYS[2]  what stands in the place of a session that has moved
-- ARGV[1]  the time to live, milliseconds

redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return redis.call('MGET', KEYS[1], KEYS[2])
