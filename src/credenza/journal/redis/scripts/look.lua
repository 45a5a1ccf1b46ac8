-- Tells how partitions are, and changes nothing. Replies with the server's time, and for each partition what all replies say, when
-- the next postponed write is due, who owns it until when, how many dead letters it has, and whether the run is a new one.

local replies = { NOW_MS }
for index = 1, #KEYS / KEYS_EACH do
  local part = read_head(keys_of(index))
  local due = redis.call('ZRANGE', part.late, 0, 0, 'WITHSCORES')[2]
  local is_new_run = part.identity ~= '' and part.run ~= RUN
  replies[index + 1] = {
    state_of(part),
    tonumber(due or 0),
    part.owner,
    part.lasts_until,
    redis.call('HLEN', part.dead),
    is_new_run and 1 or 0,
  }
end
return replies
