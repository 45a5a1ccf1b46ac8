-- Returns what is fixed for the whole journal: its format, the number of its partitions and its name. ARGV[3] is "make" if it is to be
-- made where there is none, ARGV[4] the format then.

if ARGV[3] == 'make' and redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'format', ARGV[4], 'partitions', ARGV[2], 'identity', ARGV[1])
end
return redis.call('HMGET', KEYS[1], 'format', 'partitions', 'identity')
