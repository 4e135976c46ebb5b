-- Records of a kind, newest first: {next cursor or false, record, record, ...}. Looks at no more than 1000 ids a call,
-- so a rare status may answer a short page with a cursor.
local found = { false }
local before = args.before > 0 and '(' .. string.format('%d', args.before) or '+inf'
local ids = redis.call('ZREVRANGEBYSCORE', key('jobs', args.kind), before, '-inf', 'WITHSCORES', 'LIMIT', 0, 1000)
for i = 1, #ids, 2 do
  local owner, state = unpack(redis.call('HMGET', key('job', ids[i]), 'owner', 'state'))
  if owner == args.owner and (args.state == '' or state == args.state) then
    if #found > args.limit then
      found[1] = ids[i - 1]
      return found
    end
    found[#found + 1] = redis.call('HGETALL', key('job', ids[i]))
  end
end
if #ids == 2000 then
  found[1] = ids[#ids]
end
return found
