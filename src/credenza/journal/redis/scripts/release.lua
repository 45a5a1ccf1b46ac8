-- Gives a partition up. ARGV[3] is the owner's number.

local part, refusal = enter_owned(1, ARGV[3])
if not part then
  return refusal
end
redis.call('HSET', part.head, 'owner', '', 'until', 0)
leave(part)
return state_of(part)
