-- Makes a consumer the owner of a partition that has none. ARGV[3] names the consumer, ARGV[4] is the length of its lease in ms.
-- Replies with the number that shows who is the owner, 0 if it is somebody else.

local part, refusal = enter(1)
if not part then
  return refusal
end
local fence = 0
if part.owner == '' or part.owner == ARGV[3] or part.lasts_until <= NOW_MS then
  fence = part.fence + 1
  part.taken = part.number -- a former owner may have
  redis.call(
    'HSET', part.head, 'fence', digits(fence), 'owner', ARGV[3], 'until', digits(NOW_MS + tonumber(ARGV[4]))
  )
end
leave(part)
return { state_of(part), fence }
