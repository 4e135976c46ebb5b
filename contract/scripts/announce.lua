-- A worker's heartbeat.
redis.call('HSET', key('workers'), args.worker, args.announcement)
redis.call('ZADD', key('beats'), clock(), args.worker)
return 'ok'
