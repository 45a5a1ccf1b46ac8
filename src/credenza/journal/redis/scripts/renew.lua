-- Prolongs the leases of partitions. ARGV[3] is their length in ms, from ARGV[4] follow the owner's numbers. Replies with 1 for each
-- that is still its own.

local kept = {}
for index = 1, #KEYS / KEYS_EACH do
  local part, refusal = enter_owned(index, ARGV[3 + index])
  if part then
    redis.call('HSET', part.head, 'until', digits(NOW_MS + tonumber(ARGV[3])))
  elseif refusal.err:sub(1, 6) ~= 'FENCED' then
    return refusal
  end
  kept[index] = part and 1 or 0
end
return kept
