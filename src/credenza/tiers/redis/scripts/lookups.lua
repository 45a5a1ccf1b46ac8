-- Many look-ups with one reply. KEYS are the records, ARGV[1] is the last byte of each that is wanted. A record that cannot be
-- read, such as one of a foreign type, has the server's error for its reply.

local found = {}
for place, key in ipairs(KEYS) do
  found[place] = redis.pcall('GETRANGE', key, 0, ARGV[1])
end
return found
