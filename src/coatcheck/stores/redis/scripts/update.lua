-- Compare-and-set: replaces a session's record if it still has the revision that the writer knows.
--
-- KEYS[1]  the session's key
-- ARGV[1]  the revision (8 bytes) that the record must have
-- ARGV[2]  the new record
-- ARGV[3]  its time to live, milliseconds
--
-- Returns 1 if the record was replaced, the record that is there if it is a newer one, nil if there is none.
-- A missing record is not created: a session that has ended stays ended.

-- The revision stands at bytes 1 to 8 of a record (counted from 0). Of a missing key GETRANGE gives ''.
local revision = redis.call('GETRANGE', KEYS[1], 1, 8)
if revision == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
return redis.call('GET', KEYS[1])
