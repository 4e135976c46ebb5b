-- Accepts a job, or says why not: {'accepted' | 'replayed' | 'conflict' | 'full', id}.
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
if redis.call('SCARD', key('open')) >= args.open_jobs then
  count('refused:full')
  return { 'full', '' }
end
redis.call('SET', key('epoch'), args.epoch, 'NX')
local id = redis.call('GET', key('epoch')) .. '-' .. args.nonce
local sequence = redis.call('INCR', key('sequence'))
redis.call('HSET', key('job', id),
  'schema_version', args.schema_version, 'id', id, 'sequence', sequence, 'kind', args.kind, 'queue', args.queue,
  'owner', args.owner, 'request_id', args.request_id, 'state', 'queued', 'attempt', 0, 'released', 0,
  'created', stamp(now), 'payload', args.payload, 'lease_seconds', args.lease_seconds,
  'max_attempts', args.max_attempts, 'time_limit_seconds', args.time_limit_seconds,
  'retention_seconds', args.retention_seconds)
redis.call('SADD', key('open'), id)
redis.call('ZADD', key('jobs', args.kind), sequence, id)
redis.call('ZADD', key('tokens'), now, args.queue)
enqueue(id, args.queue, sequence)
if args.idempotency ~= '' then
  redis.call('SET', idempotency, args.body_hash .. ' ' .. id, 'EX', args.retention_seconds)
end
count('submitted:' .. args.kind)
emit(id, 'type', 'state', 'state', 'queued')
return { 'accepted', id }
