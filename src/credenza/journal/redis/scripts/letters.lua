-- Returns the dead letters of one partition: for each its number, what is kept of it, and whether a later write has superseded it.

local part = keys_of(1)
local found = {}
local letters = redis.call('HGETALL', part.dead)
for at = 1, #letters, 2 do
  local _, _, _, said_bytes, key_bytes = struct.unpack(LETTER, letters[at + 1])
  local key = letters[at + 1]:sub(LETTER_BYTES + said_bytes + 1, LETTER_BYTES + said_bytes + key_bytes)
  local is_last = redis.call('HGET', part.buried, key) == letters[at]
  found[#found + 1] = { tonumber(letters[at]), letters[at + 1], is_last and 0 or 1 }
end
return found
