-- Makes dead letters pending again that nothing has superseded, or forgets them. ARGV[3] says which of the two, "retry" or "discard"; ARGV[4]
-- is "all" or "some", and then the numbers follow. Replies with how many it were.

local is_retry = ARGV[3] == 'retry'
local part, refusal = enter(1, is_retry)
if not part then
  return refusal
end

local numbers = {}
if ARGV[4] == 'all' then
  numbers = redis.call('HKEYS', part.dead)
  table.sort(numbers, function(one, other)
    return tonumber(one) < tonumber(other)
  end)
else
  for at = 5, #ARGV do
    numbers[#numbers + 1] = ARGV[at]
  end
end

local count = 0
for _, number in ipairs(numbers) do
  local letter = redis.call('HGET', part.dead, number)
  if letter then
    local _, since, _, said_bytes, key_bytes = struct.unpack(LETTER, letter)
    local key_at = LETTER_BYTES + said_bytes
    local key = letter:sub(key_at + 1, key_at + key_bytes)
    local is_last = redis.call('HGET', part.buried, key) == number
    if is_last or not is_retry then
      if is_retry then
        add_new(part, key, letter:sub(key_at + key_bytes + 1), since)
      end
      if is_last then
        redis.call('HDEL', part.buried, key)
      end
      redis.call('HDEL', part.dead, number)
      count = count + 1
    end
  end
end
leave(part)
return { state_of(part), count }
