-- Accepts a job, or says why not: {'accepted' | 'replayed' | 'conflict' | 'memory', id}, or {'full', '', age of the job
-- that waits longest, waiting jobs}. `open_jobs` bounds the waiting and running jobs of each queue, so that one queue
-- nobody serves does not close the others.
-- A repeated idempotency key is answered before the queue's bound is looked at: its job was admitted already.
local now = clock()
local idempotency = key('idempotency', args.idempotency)
if args.idempotency ~= '' then
  local seen = redis.call('GET', idempotency)
  if seen then
    local hash, id = seen:match('^(%S+) (%S+)$')
    return { hash == args.body_hash and 'replayed' or 'conflict', id }
  end
end
if crowded() then
  count('refused:memory')
  return { 'memory', '' }
end
local waiting = redis.call('ZCARD', key('queue', args.queue))
local running = 0
for _, other in ipairs(redis.call('ZRANGE', key('leases'), 0, -1)) do
  if redis.call('HGET', key('job', other), 'queue') == args.queue then
    running = running + 1
  end
end
if waiting + running >= args.open_jobs then
  count('refused:full')
  local first = redis.call('ZRANGE', key('queue', args.queue), 0, 0)[1]
  local created = first and redis.call('HGET', key('job', first), 'created') or now
  return { 'full', '', stamp(now - created), stamp(waiting) }
end
redis.call('SET', key('epoch'), args.epoch, 'NX')
local id = redis.call('GET', key('epoch')) .. '-' .. args.nonce
local sequence = redis.call('INCR', key('sequence'))
redis.call('HSET', key('job', id),
  'schema_version', args.schema_version, 'id', id, 'sequence', sequence, 'kind', args.kind, 'queue', args.queue,
  'owner', args.owner, 'request_id', args.request_id, 'state', 'queued', 'attempt', 0, 'released', 0,
  'created', stamp(now), 'payload', args.payload, 'lease_seconds', args.lease_seconds,
  'max_attempts', args.max_attempts, 'time_limit_seconds', args.time_limit_seconds,
  'retention_seconds', args.retention_seconds, 'idempotency', args.idempotency)
redis.call('SADD', key('open'), id)
redis.call('ZADD', key('jobs', args.kind), sequence, id)
redis.call('ZADD', key('tokens'), now, args.queue)
enqueue(id, args.queue, sequence)
if args.idempotency ~= '' then
  -- it lives as long as its job: the job's end sets the time; one that never ends must not keep it for ever
  redis.call('SET', idempotency, args.body_hash .. ' ' .. id, 'EX', args.retention_seconds + 30 * 86400)
end
count('submitted:' .. args.kind)
emit(id, 'type', 'state', 'state', 'queued')
return { 'accepted', id }
