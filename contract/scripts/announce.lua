-- A worker's heartbeat: what it says about itself, and, kept once for all workers, what it offers.
redis.call('HSET', key('workers'), args.worker, args.announcement)
redis.call('HSET', key('offers'), args.worker, args.digest)
redis.call('HSETNX', key('catalogues'), args.digest, args.catalogue)
redis.call('SET', key('offered'), args.digest)
redis.call('ZADD', key('beats'), clock(), args.worker)
return 'ok'
