-- Puts one record behind all others, for the owner. ARGV[3] is its number, then follow the key, its version, the delay in ms and
-- how often it has failed. Replies with when it is due.

local part, refusal = enter_owned(1, ARGV[3])
if not part then
  return refusal
end
local key = ARGV[4]
local record = read_record(part, key)
if record and record.version == tonumber(ARGV[5]) then
  drop_turn(part, key, record)
  record.place, record.whereabouts, record.failures = next_number(part), IS_LATE, tonumber(ARGV[7])
  redis.call('ZADD', part.late, digits(NOW_MS + tonumber(ARGV[6])), key)
  write_record(part, key, record)
  note_oldest(part, key, record)
end
leave(part)
return { state_of(part), NOW_MS + tonumber(ARGV[6]) }
