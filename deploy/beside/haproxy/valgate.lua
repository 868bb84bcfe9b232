-- Asks valgate about each request. Whatever goes wrong on the way refuses it.
local URL = "http://127.0.0.1:9180/"
-- In milliseconds, of one attempt: HAProxy makes three more before it gives up.
local TIMEOUT = 500
-- Every identity header, in lower case.
local IDENTITY = { "x-auth-subject" }
-- Not about the request that is asked about, or said anew below.
local LEFT_OUT = {
  ["host"] = true, ["connection"] = true, ["content-length"] = true, ["transfer-encoding"] = true,
  ["expect"] = true, ["upgrade"] = true, ["te"] = true,
  ["x-forwarded-method"] = true, ["x-forwarded-uri"] = true, ["x-forwarded-host"] = true,
  ["x-forwarded-proto"] = true, ["x-forwarded-for"] = true,
}

local function values(field)
  local list = {}
  for _, value in pairs(field) do
    list[#list + 1] = value
  end
  return list
end

local function refuse(txn, status, headers, body)
  local reply = txn:reply({ status = status, body = body })
  for name, field in pairs(headers) do
    if name ~= "content-length" and name ~= "connection" and name ~= "transfer-encoding" then
      for _, value in pairs(field) do
        reply:add_header(name, value)
      end
    end
  end
  txn:done(reply)
end

local function ask(txn)
  local headers = {}
  for name, field in pairs(txn.http:req_get_headers()) do
    if not LEFT_OUT[name] then
      headers[name] = values(field)
    end
  end
  headers["x-forwarded-method"] = { txn.f:method() }
  headers["x-forwarded-uri"] = { txn.f:pathq() }
  headers["x-forwarded-host"] = { txn.f:req_fhdr("host") }
  headers["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" }
  headers["x-forwarded-for"] = { txn.f:src() }
  return core.httpclient():get({ url = URL, headers = headers, timeout = TIMEOUT })
end

core.register_action("valgate", { "http-req" }, function(txn)
  local asked, verdict = pcall(ask, txn)
  if not asked or not verdict or not verdict.status or verdict.status == 0 then
    refuse(txn, 503, {}, "valgate cannot be asked\n")
    return
  end
  if verdict.status ~= 200 then
    refuse(txn, verdict.status, verdict.headers or {}, verdict.body or "")
    return
  end
  for _, name in ipairs(IDENTITY) do
    txn.http:req_del_header(name)
    for _, value in pairs(verdict.headers[name] or {}) do
      txn.http:req_add_header(name, value)
    end
  end
end, 0)
