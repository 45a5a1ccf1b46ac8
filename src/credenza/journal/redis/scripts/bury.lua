-- Makes one record a dead letter, for the owner. ARGV[3] is its number, then follow the key, its version and the error. Replies with 1 if
-- it did, 0 if a later write has replaced it.

local part, refusal = enter_owned(1, ARGV[3])
if not part then
  return refusal
end
local key, said = ARGV[4], ARGV[6]
local record = read_record(part, key)
local is_same = record ~= nil and record ~= false and record.version == tonumber(ARGV[5])
if is_same then
  local number = redis.call('HINCRBY', part.head, 'letters', 1)
  local about = struct.pack(LETTER, NOW_MS, record.since, record.failures + 1, #said, #key)
  redis.call('HSET', part.dead, number, about .. said .. key .. record.value)
  redis.call('HSET', part.buried, key, number)
  remove(part, key, record)
end
leave(part)
return { state_of(part), is_same and 1 or 0 }
