-- Asks for one path, with the cookies of a file in turn. Arguments: the path, the file (empty: no cookies).

local requests = {}
local position = 0

function init(arguments)
  for cookie in io.lines(arguments[2]) do
    wrk.headers["Cookie"] = cookie
    requests[#requests + 1] = wrk.format("GET", arguments[1])
  end
  if #requests == 0 then
    requests[1] = wrk.format("GET", arguments[1])
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "failed": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
