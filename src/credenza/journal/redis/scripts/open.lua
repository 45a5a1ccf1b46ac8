-- Begins partitions that are empty, and takes note of a new run of the server.

local replies = {}
for index = 1, #KEYS / KEYS_EACH do
  local part, refusal = enter(index, true)
  if not part then
    return refusal
  end
  leave(part)
  replies[index] = state_of(part)
end
return replies
