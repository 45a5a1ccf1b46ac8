-- One operation of a shared tier, atomically. What each does to a record is written down in tiers/records.py; this is the
-- same in Lua. KEYS[1] is the record, or KEYS[1] and KEYS[2] are the head and the log of a namespace. ARGV[1] names the
-- operation, ARGV[2] is the number of bytes beyond which a record is cut off.

if redis.replicate_commands then
  redis.replicate_commands() -- Redis 6.2 refuses to write after TIME otherwise; later versions always do this.
end

local TAG_LIFE_MS = 7 * 24 * 3600 * 1000
local MOST_LIFE_MS = 24 * 3600 * 1000
local LONGEST_LIFE_MS = 100 * 365 * 24 * 3600 * 1000 -- beyond what the server can count lies an error
local NOBODY = string.rep('\0', 24)
local LOST, CLEARED, STORED = 0, 1, 2

local key = KEYS[1]
local limit = tonumber(ARGV[2])

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Calls a command that reads. Returns nil where the key is of a foreign type; any other error ends the script.
local function look(...)
  local found = redis.pcall(...)
  if type(found) ~= 'table' or not found.err then
    return found
  end
  if found.err:find('WRONGTYPE', 1, true) then
    return nil
  end
  return redis.call(...)
end

-- A record of a foreign type is as good as absent.
local function read()
  return look('GETRANGE', key, 0, limit - 1) or ''
end

-- The server looks for room before a script's first write only. A fence and what announces it must not fail for want of
-- room: this write needs none, and what follows sets the expiry anew.
local function claim_room(name)
  redis.call('PERSIST', name)
end

local function write(record, life_ms)
  if life_ms < 1 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, record, 'PX', math.min(life_ms, LONGEST_LIFE_MS))
  end
end

local function u64(text)
  return (struct.unpack('>I8', text))
end

-- Whether a deadline has not passed, and is one that a lease or a fence of ours can have.
local function is_near(deadline, now)
  return now < deadline and deadline <= now + MOST_LIFE_MS
end

-- Returns the writers whose share has not expired, or all of ours. Writers are kept as they are on the wire, 16 bytes of token and 8 of deadline each, in their order.
local function living(packed, now, with_expired)
  local order, shares = {}, {}
  for start = 1, #packed - 23, 24 do
    local token = packed:sub(start, start + 15)
    local share = packed:sub(start + 16, start + 23)
    if is_near(u64(share), now) or (with_expired and u64(share) <= now) then
      if not shares[token] then
        order[#order + 1] = token
      end
      shares[token] = share
    end
  end
  return order, shares
end

local function enter(order, shares, token, deadline)
  if not shares[token] then
    order[#order + 1] = token
  end
  shares[token] = struct.pack('>I8', deadline)
end

local function leave(order, shares, token)
  if not shares[token] then
    return false
  end
  shares[token] = nil
  for place, other in ipairs(order) do
    if other == token then
      table.remove(order, place)
    end
  end
  return true
end

local function pack(order, shares)
  local parts = {}
  for place, token in ipairs(order) do
    parts[place] = token .. shares[token]
  end
  return table.concat(parts)
end

local function write_fence(order, shares, contended, now)
  local last = 0
  for _, share in pairs(shares) do
    last = math.max(last, u64(share))
  end
  write('B' .. (contended and '1' or '0') .. pack(order, shares), last - now)
end

local function value(envelope)
  return 'V' .. NOBODY .. envelope
end

local function is_leased(record, token)
  local state = record:sub(1, 1)
  return (state == 'L' or state == 'V') and record:sub(2, 17) == token
end

local function contend()
  redis.call('SETRANGE', key, 1, '1')
end

-- A value that carries the token of a lease lives at least as long as that.
local function outlive(life_ms)
  local left = redis.call('PTTL', key)
  if left >= 0 and left < life_ms then
    redis.call('PEXPIRE', key, life_ms)
  end
end

local handlers = {}

function handlers.lease(token, life_ms, seen, keeps, forced)
  life_ms, keeps, forced = tonumber(life_ms), keeps == '1', forced == '1'
  local granted, now = 'L' .. token, now_ms()
  local share = struct.pack('>I8', now + life_ms)
  local record = read()
  local state = record:sub(1, 1)
  if state == 'B' and #living(record:sub(3), now) > 0 then
    return record
  end
  if state == 'L' and #record == 25 and is_near(u64(record:sub(18, 25)), now) then
    if not forced and record:sub(2, 17) ~= token then
      return record
    end
  end
  if state == 'V' and #record > 25 then
    local holder = record:sub(2, 17)
    local taken = holder ~= NOBODY:sub(1, 16) and holder ~= token and is_near(u64(record:sub(18, 25)), now)
    local meant = forced or (seen ~= '' and record:sub(26, 25 + #seen) == seen)
    if not meant or (taken and not forced) then
      return record
    end
    if keeps then
      redis.call('SETRANGE', key, 1, token .. share)
      outlive(life_ms)
      return granted
    end
  end
  write(granted .. share, life_ms)
  return granted
end

function handlers.renew(token, life_ms)
  if not is_leased(read(), token) then
    return 0
  end
  life_ms = tonumber(life_ms)
  redis.call('SETRANGE', key, 1, token .. struct.pack('>I8', now_ms() + life_ms))
  if redis.call('GETRANGE', key, 0, 0) == 'L' then
    redis.call('PEXPIRE', key, life_ms)
  else
    outlive(life_ms)
  end
  return 1
end

function handlers.fill(token, life_ms, envelope)
  if not is_leased(read(), token) then
    return 0
  end
  write(value(envelope), tonumber(life_ms))
  return 1
end

function handlers.release(token, drops)
  local record = read()
  if not is_leased(record, token) then
    return 0
  end
  if record:sub(1, 1) == 'L' or drops == '1' then
    redis.call('DEL', key)
  else
    redis.call('SETRANGE', key, 1, NOBODY)
  end
  return 1
end

function handlers.put(life_ms, before_ms, envelope)
  if now_ms() >= tonumber(before_ms) then
    return 0
  end
  if read():sub(1, 1) == 'B' then
    contend()
    return 0
  end
  write(value(envelope), tonumber(life_ms))
  return 1
end

function handlers.drop()
  if read():sub(1, 1) == 'B' then
    contend()
  else
    redis.call('DEL', key)
  end
  return 1
end

function handlers.fence(writer, life_ms, renews)
  local record = read()
  local now = now_ms()
  local order, shares, contended = {}, {}, false
  if record:sub(1, 1) == 'B' then
    contended = record:sub(2, 2) ~= '0'
    order, shares = living(record:sub(3), now)
  end
  local was_in = shares[writer] ~= nil
  if renews == '1' and not was_in then
    return 0
  end
  claim_room(key)
  contended = contended or #order > (was_in and 1 or 0)
  enter(order, shares, writer, now + tonumber(life_ms))
  write_fence(order, shares, contended, now)
  return was_in and 1 or 0
end

function handlers.clear(writer, life_ms, envelope)
  if envelope == '' then
    claim_room(key)
  end
  local record = read()
  if record:sub(1, 1) ~= 'B' then
    redis.call('DEL', key)
    return LOST
  end
  local now = now_ms()
  local order, shares = living(record:sub(3), now)
  local was_in = leave(order, shares, writer)
  if #order > 0 then
    write_fence(order, shares, true, now)
  elseif was_in and envelope ~= '' and record:sub(2, 2) == '0' then
    write(value(envelope), tonumber(life_ms))
    return STORED
  else
    redis.call('DEL', key)
  end
  return was_in and CLEARED or LOST
end

-- Returns the epoch, the sequence as eight bytes and the writers; no epoch if the record is not a tag's.
local function read_tag(now)
  local record = read()
  if record:sub(1, 1) ~= 'T' or #record < 17 then
    return record, nil, nil, {}, {}
  end
  return record, record:sub(2, 9), record:sub(10, 17), living(record:sub(18), now, true)
end

local function write_tag(epoch, sequence, order, shares)
  local record = 'T' .. epoch .. sequence .. pack(order, shares)
  write(record, TAG_LIFE_MS)
  return record
end

function handlers.opentag(epoch, sequence)
  local record, its_epoch, _, order, shares = read_tag(now_ms())
  if its_epoch == epoch then
    return record
  end
  return write_tag(epoch, sequence, order, shares)
end

function handlers.marktag(epoch, sequence, joins, leaves, life_ms)
  claim_room(key)
  local now = now_ms()
  local _, its_epoch, its_sequence, order, shares = read_tag(now)
  if its_epoch and (u64(sequence) == 0 or (its_epoch == epoch and u64(its_sequence) > u64(sequence))) then
    epoch, sequence = its_epoch, its_sequence
  end
  if joins ~= '' then
    enter(order, shares, joins, now + tonumber(life_ms))
  end
  leave(order, shares, leaves)
  return write_tag(epoch, sequence, order, shares)
end

-- The head and the log ------------------------------------------------------------------------------------------------

local function begin_anew(epoch)
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'sequence', 0, 'floor', 0, 'widest_ms', 0)
  return { epoch, 0, 0, now_ms(), 0 }
end

local function is_count(number)
  return number and number >= 0 and number < 2 ^ 53 and number == math.floor(number)
end

-- Without a head, or with one that somebody else wrote, the namespace has lost its memory.
local function read_head(epoch)
  local found = look('HMGET', KEYS[1], 'epoch', 'sequence', 'floor', 'widest_ms') or {}
  local sequence, floor, widest_ms = tonumber(found[2] or ''), tonumber(found[3] or ''), tonumber(found[4] or '')
  if not (found[1] and #found[1] == 8 and is_count(sequence) and is_count(floor) and is_count(widest_ms)) then
    return begin_anew(epoch)
  end
  return { found[1], sequence, floor, now_ms(), widest_ms }
end

local function append(head, news)
  local id = string.format('%.0f-0', head[2] + 1)
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', 10000, id, 'news', news)
end

function handlers.readhead(epoch)
  return read_head(epoch)
end

function handlers.announce(epoch, news, clears)
  claim_room(KEYS[2])
  local head = read_head(epoch)
  local added = append(head, news)
  if type(added) == 'table' and (added.err:find('WRONGTYPE', 1, true) or added.err:find('smaller', 1, true)) then
    head = begin_anew(epoch) -- a log that is not ours, or is ahead of its head
    added = append(head, news)
  end
  if type(added) == 'table' then
    return added
  end
  head[2] = head[2] + 1
  if clears == '1' then
    head[3] = head[2]
  end
  redis.call('HSET', KEYS[1], 'sequence', head[2], 'floor', head[3])
  return head
end

function handlers.readlog(epoch, after, most, staleness_ms)
  local head = read_head(epoch)
  staleness_ms = tonumber(staleness_ms)
  if staleness_ms > head[5] then
    head[5] = staleness_ms
    redis.call('HSET', KEYS[1], 'widest_ms', staleness_ms)
  end
  local entries = redis.pcall('XRANGE', KEYS[2], string.format('%.0f-0', after + 1), '+', 'COUNT', most)
  head[6] = entries.err and {} or entries
  return head
end

return handlers[ARGV[1]](unpack(ARGV, 3))
