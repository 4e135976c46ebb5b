-- Ends a job, once: answers the state that it is in from now on, or 'fenced' to a late writer, which changes nothing.
-- A cancellation that came first wins: such a job has no result.
if not owned(args.job, args.attempt) then
  return 'fenced'
end
local now = clock()
local state = args.state
if redis.call('HEXISTS', key('job', args.job), 'cancel_requested') == 1 then
  state = 'canceled'
end
local more = {}
if state == 'succeeded' then
  more = { 'result', args.result }
elseif state == 'failed' then
  more = { 'code', args.code, 'message', args.message }
end
close(args.job, state, now, more)
return state
