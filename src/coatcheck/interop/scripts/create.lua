-- Stores a session, or what stands in the place of one that has moved, under an ID that has neither.
--
-- KEYS[1]  where it goes
-- KEYS[2]  where the other of the two would be
-- ARGV[1]  its bytes
-- ARGV[2]  its time to live, milliseconds
--
-- Returns 1 if it was stored, 0 if the ID is taken.

if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
