-- Cancels a waiting job at once; a running one is told at its next renewal. Answers the state, or false if unknown.
local now = clock()
local job = key('job', args.job)
local state = redis.call('HGET', job, 'state')
if state == 'queued' then
  redis.call('HSET', job, 'cancel_requested', stamp(now))
  close(args.job, 'canceled', now, {})
  return 'canceled'
end
if state == 'running' and redis.call('HSETNX', job, 'cancel_requested', stamp(now)) == 1 then
  emit(args.job, 'type', 'cancel-requested')
end
return state
