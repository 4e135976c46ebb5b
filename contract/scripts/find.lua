-- A job's record as a flat list; else 'lost' when its id is of another data set, or 'unknown'.
local record = redis.call('HGETALL', key('job', args.job))
if #record > 0 then
  return record
end
local epoch = redis.call('GET', key('epoch'))
if args.job:match('^(%x+)%-') == epoch then
  return 'unknown'
end
return 'lost'
