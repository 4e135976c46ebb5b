-- Puts a running job back at its old place in line, at no cost to its attempts: its worker has to stop.
-- Answers 'queued', 'canceled' if that was asked for meanwhile, or 'fenced'.
if not owned(args.job, args.attempt) then
  return 'fenced'
end
local now = clock()
local job = key('job', args.job)
local canceled, queue, sequence = unpack(redis.call('HMGET', job, 'cancel_requested', 'queue', 'sequence'))
if canceled then
  close(args.job, 'canceled', now, {})
  return 'canceled'
end
redis.call('ZREM', key('leases'), args.job)
redis.call('HSET', job, 'state', 'queued')
redis.call('HINCRBY', job, 'released', 1)
enqueue(args.job, queue, sequence)
redis.call('ZADD', key('tokens'), 0, queue)
emit(args.job, 'type', 'state', 'state', 'queued')
return 'queued'
