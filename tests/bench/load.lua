-- Sends the requests that a file lists, one a line: METHOD PATH [BODY]. Says at the end what came of them, as JSON.
local lines
local json = { ["Content-Type"] = "application/json" }

function init(args)
  lines = io.lines(args[1])
end

local last
function request()
  local line = lines and lines()
  if line then
    local method, path, body = line:match("^(%S+) (%S+) ?(.*)$")
    last = body == "" and wrk.format(method, path) or wrk.format(method, path, json, body)
  else
    lines = nil
    wrk.thread:stop()
  end
  return last
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "p999": %f, "refused": %d, "failed": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
