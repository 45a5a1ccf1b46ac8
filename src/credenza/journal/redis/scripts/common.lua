-- What all scripts of a journal have in common; each of them follows this text.
--
-- A partition has eight keys, in this order: its head; the pending records by key; the turns, a stream of keys whose ids
-- are the places; the postponed keys by when they are due; the keys that owe a write from before their place, by the
-- number of the oldest; the dead letters by number; for keys with dead letters the number of the one that no later
-- write has superseded; and keys by a place amid the turns, where a stream takes none.
--
-- A record is what is pending for a key: its version, its place, the oldest version that it stands for, how often it failed,
-- since when it waits, whether it is among the turns, the postponed or the early, and then the value as it came.
--
-- ARGV[1] is random and names a partition that is found empty, ARGV[2] is the number of partitions.

if redis.replicate_commands then
  redis.replicate_commands() -- Redis 6.2 refuses to write after TIME otherwise; later versions always do this.
end

local RECORD = '>I8I8I8I4I8I1'
local RECORD_BYTES = 37
local LETTER = '>I8I8I4I4I4'
local LETTER_BYTES = 28
local LEAP = 4294967296
local KEYS_EACH = 8
local IN_TURNS, IS_LATE, IS_EARLY = 0, 1, 2

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local NOW_MS = math.floor(now_us() / 1000)

local function digits(number)
  return string.format('%.0f', number)
end

local function id_of(place)
  return digits(place) .. '-0'
end

local function keys_of(index)
  local at = (index - 1) * KEYS_EACH
  return {
    head = KEYS[at + 1],
    pending = KEYS[at + 2],
    turns = KEYS[at + 3],
    late = KEYS[at + 4],
    older = KEYS[at + 5],
    dead = KEYS[at + 6],
    buried = KEYS[at + 7],
    early = KEYS[at + 8],
  }
end

-- The server looks for room before a script's first write only. What makes room, or takes none, must not fail for want of it:
-- this write needs none.
local function claim_room(part)
  redis.call('PERSIST', part.head)
end

-- Names the server's run; nothing if one may not ask.
local function current_run()
  local about = redis.pcall('INFO', 'server')
  return type(about) == 'string' and about:match('run_id:(%x+)') or ''
end

local RUN = current_run()

local function read_head(part)
  local found = redis.call(
    'HMGET', part.head, 'identity', 'run', 'base', 'number', 'taken', 'fence', 'changes', 'owner', 'until', 'partitions'
  )
  part.identity = found[1] or ''
  part.run = found[2]
  part.base = tonumber(found[3] or 0)
  part.number = tonumber(found[4] or 0)
  part.taken = tonumber(found[5] or 0)
  part.fence = tonumber(found[6] or 0)
  part.changes = tonumber(found[7] or 0)
  part.owner = found[8] or ''
  part.lasts_until = tonumber(found[9] or 0)
  part.partitions = found[10]
  return part
end

-- Another run of the server may know less than the one before it had said: it was started from an older state, or was a
-- replica. So no number that may have been used comes again, what is pending counts as taken, and nobody owns the partition.
local function leap(part)
  part.base = part.number
  part.number = part.number + LEAP
  part.taken = part.number
  part.fence = part.fence + LEAP
  part.changes = part.changes + LEAP
  part.owner, part.lasts_until, part.run = '', 0, RUN
  redis.call(
    'HSET', part.head, 'base', digits(part.base), 'fence', digits(part.fence), 'owner', '', 'until', 0, 'run', RUN
  )
end

local function begin(part)
  part.identity, part.run, part.partitions = ARGV[1], RUN, ARGV[2]
  part.number = math.max(now_us(), part.number) -- beyond all that an earlier life of the journal can have used
  part.base, part.taken = part.number, part.number
  redis.call(
    'HSET', part.head, 'identity', ARGV[1], 'run', RUN, 'partitions', ARGV[2], 'base', digits(part.base), 'letters', 0
  )
end

-- Reads the head of a partition that is to be changed. Returns the partition, or the error to reply with.
local function enter(index, needs_room)
  local part = keys_of(index)
  if not needs_room then
    claim_room(part)
  end
  read_head(part)
  if part.identity == '' then
    begin(part)
  elseif part.partitions ~= ARGV[2] then
    return nil, redis.error_reply('PARTITIONS ' .. tostring(part.partitions))
  elseif part.run ~= RUN then
    leap(part)
  end
  return part
end

-- Does the same for its owner alone.
local function enter_owned(index, fence)
  local part, refusal = enter(index)
  if part and (part.owner == '' or part.fence ~= tonumber(fence)) then
    return nil, redis.error_reply('FENCED')
  end
  return part, refusal
end

local function leave(part)
  part.changes = part.changes + 1
  redis.call(
    'HSET', part.head, 'number', digits(part.number), 'taken', digits(part.taken), 'changes', digits(part.changes)
  )
end

local function next_number(part)
  part.number = part.number + 1
  return part.number
end

-- Returns the oldest version that something pending stands for; 0 if nothing is pending.
local function floor_of(part)
  local floor = 0
  local turn = redis.call('XRANGE', part.turns, '-', '+', 'COUNT', 1)[1]
  if turn then
    floor = tonumber(turn[1]:match('^%d+'))
  end
  local older = redis.call('ZRANGE', part.older, 0, 0, 'WITHSCORES')[2]
  local early = redis.call('ZRANGE', part.early, 0, 0, 'WITHSCORES')[2]
  for _, number in ipairs({ older or false, early or false }) do
    if number and (floor == 0 or tonumber(number) < floor) then
      floor = tonumber(number)
    end
  end
  return floor
end

-- What every reply says of a partition; a floor of -1 is one that nobody looked for.
local function state_of(part, floor)
  local pending = redis.call('HLEN', part.pending)
  return { part.identity, part.base, part.changes, part.number, pending, floor or floor_of(part) }
end

local function unpack_record(packed)
  local version, place, first, failures, since, whereabouts = struct.unpack(RECORD, packed)
  return {
    version = version,
    place = place,
    first = first,
    failures = failures,
    since = since,
    whereabouts = whereabouts,
    value = packed:sub(RECORD_BYTES + 1),
  }
end

local function write_record(part, key, record)
  local packed = struct.pack(
    RECORD, record.version, record.place, record.first, record.failures, record.since, record.whereabouts
  )
  redis.call('HSET', part.pending, key, packed .. record.value)
end

local function read_record(part, key)
  local packed = redis.call('HGET', part.pending, key)
  return packed and unpack_record(packed)
end

local function add_turn(part, key, place)
  redis.call('XADD', part.turns, id_of(place), 'k', key)
end

-- Takes a key out of where it waits.
local function drop_turn(part, key, record)
  if record.whereabouts == IS_LATE then
    redis.call('ZREM', part.late, key)
  elseif record.whereabouts == IS_EARLY then
    redis.call('ZREM', part.early, key)
  else
    redis.call('XDEL', part.turns, id_of(record.place))
  end
end

local function note_oldest(part, key, record)
  if record.first < record.place then
    redis.call('ZADD', part.older, digits(record.first), key)
  else
    redis.call('ZREM', part.older, key)
  end
end

local function remove(part, key, record)
  redis.call('HDEL', part.pending, key)
  drop_turn(part, key, record)
  if record.first < record.place then
    redis.call('ZREM', part.older, key)
  end
end

local function add_new(part, key, value, since)
  local number = next_number(part)
  add_turn(part, key, number)
  write_record(part, key, {
    version = number,
    place = number,
    first = number,
    failures = 0,
    since = since,
    whereabouts = IN_TURNS,
    value = value,
  })
end
