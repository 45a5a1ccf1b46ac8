-- Returns the records whose turn it is, for the owner. ARGV[3] is its number, ARGV[4] the length of its lease in ms, ARGV[5] the most
-- records, ARGV[6] after how many bytes there shall be no further one. Replies with the number up to which all was seen, too.

local part, refusal = enter_owned(1, ARGV[3])
if not part then
  return refusal
end
local limit, most_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
redis.call('HSET', part.head, 'until', digits(NOW_MS + tonumber(ARGV[4])))

-- Those that are due come behind all others, in the order in which they were postponed.
local due = {}
for _, key in ipairs(redis.call('ZRANGEBYSCORE', part.late, '-inf', NOW_MS, 'LIMIT', 0, limit)) do
  redis.call('ZREM', part.late, key)
  local record = read_record(part, key)
  if record then
    due[#due + 1] = { key, record }
  end
end
table.sort(due, function(one, other)
  return one[2].place < other[2].place
end)
for _, pair in ipairs(due) do
  local key, record = pair[1], pair[2]
  record.place, record.whereabouts = next_number(part), IN_TURNS
  add_turn(part, key, record.place)
  write_record(part, key, record)
  note_oldest(part, key, record)
end

-- Returns the keys whose turn it is, by place, each with its place.
local function next_turns()
  local turns = {}
  for _, entry in ipairs(redis.call('XRANGE', part.turns, '-', '+', 'COUNT', limit)) do
    turns[#turns + 1] = { tonumber(entry[1]:match('^%d+')), entry[2][2] }
  end
  local early = redis.call('ZRANGE', part.early, 0, limit - 1, 'WITHSCORES')
  for at = 1, #early, 2 do
    turns[#turns + 1] = { tonumber(early[at + 1]), early[at] }
  end
  if #early > 0 then
    table.sort(turns, function(one, other)
      return one[1] < other[1]
    end)
  end
  return turns
end

local taken, bytes, last, is_cut = {}, 0, 0, false
for _, turn in ipairs(next_turns()) do
  local place, key = turn[1], turn[2]
  if #taken == 2 * limit then
    break
  end
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
    redis.call('XDEL', part.turns, id_of(place)) -- somebody else deleted the record
    redis.call('ZREM', part.early, key)
  end
  last = place
end
is_cut = is_cut or #taken == 2 * limit
part.taken = math.max(part.taken, last)
leave(part)
return { state_of(part), taken, is_cut and last or part.number }
