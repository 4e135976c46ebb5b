-- Whether a job would be taken now: 'ok' or 'memory'. A store that takes no writes refuses.
redis.call('SET', key('probe'), stamp(clock()), 'EX', 60)
return crowded() and 'memory' or 'ok'
