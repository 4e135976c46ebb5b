-- One call is lease, cancellation, deadline and progress: go | canceled | deadline | fenced.
if not owned(args.job, args.attempt) then
  return 'fenced'
end
local now = clock()
local job = key('job', args.job)
local canceled, deadline, lease = unpack(redis.call('HMGET', job, 'cancel_requested', 'deadline', 'lease_seconds'))
if canceled then
  return 'canceled'
end
if now >= tonumber(deadline) then
  return 'deadline'
end
redis.call('ZADD', key('leases'), now + lease, args.job)
if args.stage ~= '' then
  redis.call('HSET', job, 'stage', args.stage, 'step', args.step, 'steps', args.steps, 'note', args.note)
  if args.note == '' then
    emit(args.job, 'type', 'progress', 'stage', args.stage, 'step', args.step, 'steps', args.steps)
  else
    emit(args.job, 'type', 'progress', 'stage', args.stage, 'step', args.step, 'steps', args.steps, 'note', args.note)
  end
end
return 'go'
