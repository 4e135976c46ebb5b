-- Shared by every script. KEYS[1] is the prefix of all keys; ARGV[1] is a JSON object of named arguments, where
-- `now` is 0 for the server's own clock (the only clock there is: no host's time is ever compared with another's).
--
--   epoch                string   names this data set; every job id starts with it
--   sequence             integer  the next job's place in line
--   job:<id>             hash     the record: the truth about a job
--   open                 set      ids of jobs that are not terminal
--   queue:<queue>        zset     waiting ids by sequence
--   queues               set      names of queues ever used
--   tokens               zset     queue -> when its last wake-up token was sent
--   leases               zset     running ids by the time their lease ends
--   jobs:<kind>          zset     all ids of a kind by sequence, for lists
--   events:<id>          stream   progress; an event's id is the stream's
--   idempotency:<scope>  string   "<body hash> <id>"
--   probe                string   written to see whether the store takes writes
--   counts               hash     totals for metrics
--   workers, beats       hash, zset  announcements by worker, and when each was last heard
--   offers, catalogues   hashes   the digest of what each worker offers, and by digest all that it offers
--   offered              string   the digest that was announced last

local EVENTS_SECONDS = 600 -- how long the events of a job that has ended are kept: half of its bytes
local PREFIX = KEYS[1]
local args = cjson.decode(ARGV[1])

local function key(...)
  return PREFIX .. table.concat({ ... }, ':')
end

local function clock()
  if args.now > 0 then
    return args.now
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function stamp(time)
  return string.format('%.6f', time)
end

-- Bytes that the server has in use, and the most that it may have, 0 for no bound.
local function memory()
  local figures = redis.call('INFO', 'memory')
  return tonumber(figures:match('[\r\n]used_memory:(%d+)')), tonumber(figures:match('[\r\n]maxmemory:(%d+)'))
end

-- Whether four fifths of the memory are taken: the rest is for jobs that were accepted, which still have to end.
local function crowded()
  local used, most = memory()
  return most > 0 and used > 0.8 * most
end

local function count(name)
  redis.call('HINCRBY', key('counts'), name, 1)
end

local function emit(id, ...)
  redis.call('XADD', key('events', id), 'MAXLEN', 256, '*', ...)
end

local function enqueue(id, queue, sequence)
  redis.call('ZADD', key('queue', queue), sequence, id)
  redis.call('SADD', key('queues'), queue)
end

-- The one way into a terminal state. `more` are further fields of the record.
local function close(id, state, now, more)
  local job = key('job', id)
  local queue, kind, retention, idempotency =
    unpack(redis.call('HMGET', job, 'queue', 'kind', 'retention_seconds', 'idempotency'))
  redis.call('HSET', job, 'state', state, 'finished', stamp(now), unpack(more))
  redis.call('SREM', key('open'), id)
  redis.call('ZREM', key('leases'), id)
  redis.call('ZREM', key('queue', queue), id)
  count('finished:' .. kind .. ':' .. state)
  emit(id, 'type', 'state', 'state', state)
  redis.call('EXPIRE', job, retention)
  redis.call('EXPIRE', key('events', id), math.min(retention, EVENTS_SECONDS))
  if idempotency and idempotency ~= '' then
    redis.call('EXPIRE', key('idempotency', idempotency), retention)
  end
end

-- Whether this attempt still owns the job: every write of a worker passes here first.
local function owned(id, attempt)
  local state, current = unpack(redis.call('HMGET', key('job', id), 'state', 'attempt'))
  return state == 'running' and tonumber(current) == attempt
end
