-- Strikes off what was delivered, for the owner. ARGV[3] is its number, from ARGV[4] follow keys with the versions that were.

local part, refusal = enter_owned(1, ARGV[3])
if not part then
  return refusal
end
for at = 4, #ARGV, 2 do
  local key, version = ARGV[at], tonumber(ARGV[at + 1])
  local record = read_record(part, key)
  if record and record.version == version then
    remove(part, key, record)
  elseif record and record.first <= version then
    -- What has replaced it is pending since then.
    record.first, record.since = math.min(version + 1, record.place), NOW_MS
    write_record(part, key, record)
    note_oldest(part, key, record)
  end
end
leave(part)
return state_of(part)
