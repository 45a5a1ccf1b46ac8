-- Takes note of a new run of the server, and begins partitions that are empty.

local replies = {}
for index = 1, #KEYS / KEYS_EACH do
  local part, refusal = enter(index)
  if not part then
    return refusal
  end
  leave(part)
  replies[index] = state_of(part)
end
return replies
