-- Returns the records whose turn it is, for the owner. ARGV[3] is its number, ARGV[4] the length of its lease in ms, ARGV[5] the most
-- records, ARGV[6] after how many bytes there shall be no further one. Replies with the number up to which all was seen, too.

local part, refusal = enter_owned(1, ARGV[3])
if not part then
  return refusal
end
local limit, most_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
redis.call('HSET', part.head, 'until', digits(NOW_MS + tonumber(ARGV[4])))

for _, key in ipairs(redis.call('ZRANGEBYSCORE', part.late, '-inf', NOW_MS, 'LIMIT', 0, limit)) do
  local record = read_record(part, key)
  redis.call('ZREM', part.late, key)
  if record then
    record.place, record.is_late = next_number(part), false
    add_turn(part, key, record.place)
    write_record(part, key, record)
    note_oldest(part, key, record)
  end
end

local taken, bytes = {}, 0
local turns = redis.call('XRANGE', part.turns, '-', '+', 'COUNT', limit)
local last, is_cut = 0, #turns == limit
for _, turn in ipairs(turns) do
  local key = turn[2][2]
  local packed = redis.call('HGET', part.pending, key)
  if packed then
    if bytes > 0 and bytes + #packed > most_bytes then
      is_cut = true
      break
    end
    bytes = bytes + #packed
    taken[#taken + 1] = key
    taken[#taken + 1] = packed
  else
    redis.call('XDEL', part.turns, turn[1]) -- somebody else deleted the record
  end
  last = tonumber(turn[1]:match('^%d+'))
end
part.taken = math.max(part.taken, last)
leave(part)
return { state_of(part), taken, is_cut and last or part.number }
