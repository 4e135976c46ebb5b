-- What workers announced: {{{age in seconds, announcement, digest of what it offers or ''}, ...}, {{digest, catalogue}, ...
-- but those in `known`}, digest offered last or ''}. Workers silent for longer than `forget_seconds` are dropped, and
-- catalogues that none of the others offers, but for the last one. Workers of 0.1.0 have no digest.
local now = clock()
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', key('beats'), '-inf', stamp(now - args.forget_seconds))) do
  redis.call('ZREM', key('beats'), worker)
  redis.call('HDEL', key('workers'), worker)
  redis.call('HDEL', key('offers'), worker)
end

local offered = redis.call('GET', key('offered')) or ''
local kept = { [offered] = true }
for _, digest in ipairs(redis.call('HVALS', key('offers'))) do
  kept[digest] = true
end
local known = {}
for _, digest in ipairs(args.known) do
  known[digest] = true
end
local catalogues = {}
for _, digest in ipairs(redis.call('HKEYS', key('catalogues'))) do
  if not kept[digest] then
    redis.call('HDEL', key('catalogues'), digest)
  elseif not known[digest] then
    catalogues[#catalogues + 1] = { digest, redis.call('HGET', key('catalogues'), digest) }
  end
end

local heard = {}
local beats = redis.call('ZRANGE', key('beats'), 0, -1, 'WITHSCORES')
for i = 1, #beats, 2 do
  local worker = beats[i]
  heard[#heard + 1] = {
    stamp(now - beats[i + 1]), redis.call('HGET', key('workers'), worker), redis.call('HGET', key('offers'), worker) or ''
  }
end
return { heard, catalogues, offered }
