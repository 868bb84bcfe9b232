-- Changes entries and tells of the changes, all at once or not at all.
-- KEYS: entries, expiry, changes.
-- ARGV: how many changes to keep, an epoch for a list that is new, then for each entry:
--   field, the value it must have now, the value it gets ('' is none), when it expires ('' is never), the change to tell.
-- Answers 1; 0 if an entry is not what it must be; -1 if the entries are lost.
if redis.call('HEXISTS', KEYS[1], 'epoch') == 0 then
  if redis.call('EXISTS', KEYS[3]) == 1 then return -1 end
  redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
  redis.call('XADD', KEYS[3], '*', 'epoch', ARGV[2])
end
for i = 3, #ARGV, 5 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end
end
for i = 3, #ARGV, 5 do
  local field, value, expires, change = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  if value == '' then redis.call('HDEL', KEYS[1], field) else redis.call('HSET', KEYS[1], field, value) end
  if expires == '' then redis.call('ZREM', KEYS[2], field) else redis.call('ZADD', KEYS[2], expires, field) end
  if change ~= '' then redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[1], '*', 'entry', change) end
end
-- What expired goes, somewhat later than it must: gateways allow for clocks that differ.
local now = redis.call('TIME')[1] - 900
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
  redis.call('ZREM', KEYS[2], unpack(gone))
end
return 1
