-- Takes the job that waits longest in any of `queues`; answers its record as a flat list, or false.
-- A job that took `max_attempts` workers down is not given to another one. Releases do not count as attempts.
local now = clock()

local function head()
  local best, place
  for _, queue in ipairs(args.queues) do
    local first = redis.call('ZRANGE', key('queue', queue), 0, 0, 'WITHSCORES')
    if first[1] and (not place or tonumber(first[2]) < place) then
      best, place = first[1], tonumber(first[2])
    end
  end
  return best
end

local id = head()
while id do
  local job = key('job', id)
  local queue, attempt, released, limit, lease, time_limit = unpack(redis.call(
    'HMGET', job, 'queue', 'attempt', 'released', 'max_attempts', 'lease_seconds', 'time_limit_seconds'))
  if attempt - released >= tonumber(limit) then
    close(id, 'failed', now, { 'code', 'poison', 'message',
      'gave up after ' .. limit .. ' attempts: each time the worker was gone before the job ended' })
  else
    redis.call('ZREM', key('queue', queue), id)
    redis.call('HINCRBY', job, 'attempt', 1)
    redis.call('HSET', job, 'state', 'running', 'worker', args.worker, 'started', stamp(now),
      'deadline', stamp(now + time_limit))
    redis.call('HDEL', job, 'stage', 'step', 'steps', 'note')
    redis.call('ZADD', key('leases'), now + lease, id)
    emit(id, 'type', 'state', 'state', 'running', 'attempt', attempt + 1)
    return redis.call('HGETALL', job)
  end
  id = head()
end
return false
