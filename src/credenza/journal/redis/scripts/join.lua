-- Says that a consumer lives. KEYS[1] are the consumers by when they last said so, ARGV[3] is its name, ARGV[4] after how many ms of
-- silence one is dead. Returns the living.

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', digits(NOW_MS - tonumber(ARGV[4])))
redis.call('ZADD', KEYS[1], digits(NOW_MS), ARGV[3])
return redis.call('ZRANGE', KEYS[1], 0, -1)
