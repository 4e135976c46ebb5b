-- What workers announced: {age in seconds, announcement}, ... Those silent for longer than `forget_seconds` are dropped.
local now = clock()
local gone = redis.call('ZRANGEBYSCORE', key('beats'), '-inf', stamp(now - args.forget_seconds))
for _, worker in ipairs(gone) do
  redis.call('ZREM', key('beats'), worker)
  redis.call('HDEL', key('workers'), worker)
end
local heard = {}
local beats = redis.call('ZRANGE', key('beats'), 0, -1, 'WITHSCORES')
for i = 1, #beats, 2 do
  heard[#heard + 1] = { stamp(now - beats[i + 1]), redis.call('HGET', key('workers'), beats[i]) }
end
return heard
