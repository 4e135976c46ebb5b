-- Figures for metrics: {open jobs, flat counts, {bytes used, most bytes or 0}, {queue, depth, oldest age}, ...}. The age of a queue is that of its
-- head, the job that waits longest.
local now = clock()
local figures = { redis.call('SCARD', key('open')), redis.call('HGETALL', key('counts')), { memory() } }
for _, queue in ipairs(redis.call('SMEMBERS', key('queues'))) do
  local first = redis.call('ZRANGE', key('queue', queue), 0, 0)[1]
  local age = first and now - redis.call('HGET', key('job', first), 'created') or 0
  figures[#figures + 1] = { queue, redis.call('ZCARD', key('queue', queue)), stamp(age) }
end
return figures
