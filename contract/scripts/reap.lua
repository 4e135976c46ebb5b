-- Repairs what crashes leave behind; harmless to run twice or in two processes. Answers the queues that need a token,
-- as pairs {queue, id of its first job}: Celery may have lost the one that was sent.
local now = clock()
local BATCH = 100

for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('leases'), '-inf', stamp(now), 'LIMIT', 0, BATCH)) do
  local job = key('job', id)
  local canceled, deadline, queue, sequence =
    unpack(redis.call('HMGET', job, 'cancel_requested', 'deadline', 'queue', 'sequence'))
  count('leases:expired')
  if canceled then
    close(id, 'canceled', now, {})
  elseif now >= tonumber(deadline) then
    close(id, 'failed', now, { 'code', 'deadline-exceeded', 'message', 'the job ran longer than it may' })
  else
    redis.call('ZREM', key('leases'), id)
    redis.call('HSET', job, 'state', 'queued')
    enqueue(id, queue, sequence)
    redis.call('ZADD', key('tokens'), 0, queue)
    emit(id, 'type', 'state', 'state', 'queued')
  end
end

for _, kind in ipairs(args.kinds) do
  for _, id in ipairs(redis.call('ZRANGE', key('jobs', kind), 0, BATCH - 1)) do
    if redis.call('EXISTS', key('job', id)) == 0 then
      redis.call('ZREM', key('jobs', kind), id)
    end
  end
end

local asleep = {}
for _, queue in ipairs(redis.call('ZRANGEBYSCORE', key('tokens'), '-inf', stamp(now - args.resend_seconds))) do
  local first = redis.call('ZRANGE', key('queue', queue), 0, 0)[1]
  if first then
    redis.call('ZADD', key('tokens'), now, queue)
    count('tokens:resent')
    asleep[#asleep + 1] = { queue, first }
  else
    redis.call('ZREM', key('tokens'), queue)
  end
end
return asleep
