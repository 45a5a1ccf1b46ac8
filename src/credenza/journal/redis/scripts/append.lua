-- Keeps entries, all or none. From ARGV[3], for each partition: how many, and then each key with its value.

-- A write takes over the place of the one that it replaces, unless that was taken, or may have been. What needs room comes first.
local function replace(part, key, value, record)
  local version = next_number(part)
  local place, stays = version, record.place > part.taken
  local whereabouts = record.whereabouts
  if not stays then
    whereabouts = IN_TURNS
    add_turn(part, key, place)
    drop_turn(part, key, record)
  else
    place = record.place
    if whereabouts == IS_LATE then
      whereabouts = IS_EARLY
      redis.call('ZADD', part.early, digits(place), key)
      drop_turn(part, key, record)
    end
  end
  local renewed = {
    version = version,
    place = place,
    first = record.first,
    failures = 0,
    since = record.since,
    whereabouts = whereabouts,
    value = value,
  }
  write_record(part, key, renewed)
  if not stays then
    note_oldest(part, key, renewed)
  end
end

local parts = {}
for index = 1, #KEYS / KEYS_EACH do
  local part, refusal = enter(index, true)
  if not part then
    return refusal
  end
  parts[index] = part
end

local at = 3
local replies = {}
for index, part in ipairs(parts) do
  local has_letters = redis.call('EXISTS', part.buried) == 1
  for _ = 1, tonumber(ARGV[at]) do
    local key, value = ARGV[at + 1], ARGV[at + 2]
    local record = read_record(part, key)
    if record then
      replace(part, key, value, record)
    else
      add_new(part, key, value, NOW_MS)
    end
    if has_letters then
      redis.call('HDEL', part.buried, key) -- its dead letters are superseded
    end
    at = at + 2
  end
  at = at + 1
  leave(part)
  replies[index] = state_of(part, -1)
end
return replies
