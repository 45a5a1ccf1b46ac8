-- Returns the pending record that stands for the oldest write; nothing if there is none.

local part = keys_of(1)
local key = redis.call('ZRANGE', part.older, 0, 0)[1]
local first = redis.call('XRANGE', part.turns, '-', '+', 'COUNT', 1)[1]
local record = key and redis.call('HGET', part.pending, key)
local other = first and redis.call('HGET', part.pending, first[2][2])
if record and other then
  return unpack_record(record).since <= unpack_record(other).since and record or other
end
return record or other
