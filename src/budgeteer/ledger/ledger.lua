-- The twin of core.py inside Redis: one operation, one call. The rules are written there; tests hold both to one model.
-- KEYS: meta, accounts, books, reservations, due, closed, journal. Text formats:
--   accounts      path -> limits "kind amount window,..."  ("-" for none)
--   books         path TAB kind -> "spent held over|window bucket:units bucket:units|..."
--   reservations  id -> path TAB amounts TAB expires TAB status TAB asked TAB actual TAB over TAB at TAB detail
-- ARGV: clock (milliseconds, "" = the server's), remember (milliseconds), entries that the caller has seen, buckets of
-- windows in time zones ("window bucket begins ends,..."), operation, its arguments. The reply is one line of fields separated
-- by tabs: entries in the journal, status, and what belongs to it.
-- All is read before anything is written. Redis knows no time zones, so if a bucket that is needed was not given, or is not
-- that of the server's time, nothing is written, and the reply ZONES has the time and the windows for the caller to look up.
-- Units reach 2^62, beyond Lua's exact 2^53, so an integer is {hi, lo} = hi * 10^9 + lo, 0 <= lo < 10^9.

local META, ACCOUNTS, BOOKS, RESERVATIONS, DUE, CLOSED, JOURNAL = unpack(KEYS)
local BASE = 1000000000
local ZERO = {0, 0}
local ABANDONED = '{"estimated":"yes","outcome":"abandoned"}'

local function parse(text)
  if text == '0' then return ZERO end
  if #text <= 9 and string.byte(text) ~= 45 then return {0, tonumber(text)} end
  local sign, digits = 1, text
  if string.sub(text, 1, 1) == '-' then sign, digits = -1, string.sub(text, 2) end
  local cut = #digits - 9
  local hi = cut > 0 and tonumber(string.sub(digits, 1, cut)) or 0
  local lo = tonumber(cut > 0 and string.sub(digits, cut + 1) or digits)
  if sign > 0 then return {hi, lo} end
  if lo == 0 then return {-hi, 0} end
  return {-hi - 1, BASE - lo}
end

local function text(n)
  if n == ZERO then return '0' end
  local hi, lo = n[1], n[2]
  if hi < 0 then
    if lo > 0 then hi, lo = hi + 1, BASE - lo end
    if hi == 0 then return string.format('-%d', lo) end
    return string.format('%d%09d', hi, lo)
  end
  if hi == 0 then return string.format('%d', lo) end
  return string.format('%d%09d', hi, lo)
end

local function add(a, b)
  local hi, lo = a[1] + b[1], a[2] + b[2]
  if lo >= BASE then return {hi + 1, lo - BASE} end
  return {hi, lo}
end

local function sub(a, b)
  local hi, lo = a[1] - b[1], a[2] - b[2]
  if lo < 0 then return {hi - 1, lo + BASE} end
  return {hi, lo}
end

local function less(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end

local function split(line)
  local fields = {}
  for field in string.gmatch(line .. '\t', '([^\t]*)\t') do fields[#fields + 1] = field end
  return fields
end

local function amounts_of(line)
  local found = {}
  for kind, units in string.gmatch(line, '(%S+) (%S+)') do found[#found + 1] = {kind, parse(units)} end
  return found
end

local function amounts_text(amounts)
  local parts = {}
  for i, pair in ipairs(amounts) do parts[i] = pair[1] .. ' ' .. text(pair[2]) end
  return table.concat(parts, ' ')
end

-- windows, as in limit.py

local function month(day)
  local shifted = day + 719468
  local era = math.floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  return (era * 400 + year - 1970) * 12 + math.floor((5 * of_year + 2) / 153) + 2
end

-- what the caller says of windows in time zones, and those that it has to say more of
local given, missing
local function zoned(window, now)
  if not given then
    given, missing = {}, {}
    for name, index, begins, ends in string.gmatch(ARGV[4], '([^ ,]+) (%S+) (%S+) ([^ ,]+)') do
      given[name] = {index = tonumber(index), begins = tonumber(begins), ends = tonumber(ends)}
    end
  end
  local found = given[window]
  if found and found.begins <= now and now < found.ends then return found.index end
  missing[window] = true
  return 0
end

local function bucket(window, now)
  if window == 'hour' then return math.floor(now / 3600000) end
  if window == 'day' then return math.floor(now / 86400000) end
  if window == 'month' then return month(math.floor(now / 86400000)) end
  if string.find(window, '@', 1, true) then return zoned(window, now) end
  return math.floor(now / math.ceil(tonumber(window) * 1000 / 60))
end

local function unit_of(window) return string.match(window, '^(%a+)') end  -- nil for a rolling one

local function span(window)
  local seconds = tonumber(window)
  if not seconds then return 1 end
  return math.ceil(seconds * 1000 / math.ceil(seconds * 1000 / 60)) + 1
end

-- state

local meta = redis.call('HMGET', META, 'seq', 'head', 'now')
if tonumber(meta[1] or -1) < tonumber(ARGV[3]) then return 'LOST\t' .. (meta[1] or '') end
local seq, head, now = tonumber(meta[1]), meta[2], tonumber(meta[3])
local clock
if ARGV[1] == '' then
  local t = redis.call('TIME')
  clock = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
else
  clock = tonumber(ARGV[1])
end
local remember, operation = tonumber(ARGV[2]), ARGV[5]

local function int(n) return string.format('%d', n) end

local accounts, books, lines, dirty, paths, records = {}, {}, {}, {}, {}, {}
local writes = {}  -- calls of Redis, made at the end
local function put(...) writes[#writes + 1] = {...} end

local function limits_of(line)  -- list of {kind, amount or false, window or false}; false if there is no line
  if not line then return false end
  local found = {}
  for kind, amount, window in string.gmatch(line, '([^ ,]+) ([^ ,]+) ([^ ,]+)') do
    found[#found + 1] = {kind, amount ~= '-' and parse(amount), window ~= '-' and window}
  end
  return found
end

local function account(path)  -- its limits; false if it is not open
  local found = accounts[path]
  if found == nil then
    found = limits_of(redis.call('HGET', ACCOUNTS, path))
    accounts[path] = found
  end
  return found
end

-- Scopes outermost first; second result: the first one that is not open. What is read of Redis for a path is read in
-- two calls, since a call takes longer than what is done with its reply.
local function along(path)
  local scopes = paths[path]
  if scopes then return scopes end
  scopes = {}
  local at = 0
  repeat
    at = string.find(path, '/', at + 1, true)
    scopes[#scopes + 1] = at and string.sub(path, 1, at - 1) or path
  until not at
  for i, line in ipairs(redis.call('HMGET', ACCOUNTS, unpack(scopes))) do
    if accounts[scopes[i]] == nil then accounts[scopes[i]] = limits_of(line) end
  end
  for _, scope in ipairs(scopes) do
    if not accounts[scope] then return nil, scope end
  end
  paths[path] = scopes
  local seen, keys = {}, {}
  for _, owner in ipairs(scopes) do
    for _, limit in ipairs(accounts[owner]) do
      if not seen[limit[1]] then
        seen[limit[1]] = true
        for _, scope in ipairs(scopes) do
          local key = scope .. '\t' .. limit[1]
          if lines[key] == nil then keys[#keys + 1] = key end
        end
      end
    end
  end
  if #keys > 0 then
    for i, line in ipairs(redis.call('HMGET', BOOKS, unpack(keys))) do lines[keys[i]] = line end
  end
  return scopes
end

local function book(path, kind)
  local key = path .. '\t' .. kind
  local found = books[key]
  if found then return found end
  found = {spent = ZERO, held = ZERO, over = ZERO, windows = {}, counted = {}}
  local line = lines[key]
  if line == nil then line = redis.call('HGET', BOOKS, key) end
  local stored = {}
  if line then
    local spent, held, over = string.match(line, '^(%S+) (%S+) ([^|]+)')
    found.spent, found.held, found.over = parse(spent), parse(held), parse(over)
    if string.find(line, '|', 1, true) then
      for name, rest in string.gmatch(line, '|([^ |]+)([^|]*)') do
        stored[name] = {}
        for index, units in string.gmatch(rest, '(%S+):(%S+)') do stored[name][index] = parse(units) end
      end
    end
  end
  for _, limit in ipairs(account(path)) do
    if limit[1] == kind and limit[2] then
      if limit[3] then
        local window = {name = limit[3], limit = limit[2], buckets = stored[limit[3]] or {}}
        found.windows[#found.windows + 1], found.counted[#found.counted + 1] = window, window
        stored[limit[3]] = nil
      else
        found.limit = limit[2]
      end
    end
  end
  for name, buckets in pairs(stored) do  -- no limit at present
    found.counted[#found.counted + 1] = {name = name, buckets = buckets}
  end
  books[key] = found
  return found
end

local function save()  -- balances
  local fields = {}
  for key in pairs(dirty) do
    local found = books[key]
    local line = text(found.spent) .. ' ' .. text(found.held) .. ' ' .. text(found.over)
    for _, window in ipairs(found.counted) do
      line = line .. '|' .. window.name
      for index, units in pairs(window.buckets) do line = line .. ' ' .. index .. ':' .. text(units) end
    end
    lines[key] = line
    fields[#fields + 1] = key
    fields[#fields + 1] = line
    if #fields >= 1000 then
      put('HSET', BOOKS, unpack(fields))
      fields = {}
    end
  end
  if #fields > 0 then put('HSET', BOOKS, unpack(fields)) end
  dirty = {}
end

local function used(window)
  local oldest, sum = bucket(window.name, now) - span(window.name), ZERO
  for index, units in pairs(window.buckets) do
    if tonumber(index) > oldest then sum = add(sum, units) end
  end
  return sum
end

local function window_add(window, units)
  local index = bucket(window.name, now)
  if string.find(window.name, '@', 1, true) then  -- callers may have different time zone databases, see windows.py
    if not less(ZERO, units) then return end
    if window.buckets[int(index + 1)] then index = index + 1 end
  end
  for other in pairs(window.buckets) do
    if tonumber(other) <= index - span(window.name) then window.buckets[other] = nil end
  end
  if less(ZERO, units) then
    window.buckets[int(index)] = add(window.buckets[int(index)] or ZERO, units)
  end
end

local function room(found)  -- nil = unlimited
  local free = found.limit and sub(sub(found.limit, found.spent), found.held)
  for _, window in ipairs(found.windows) do
    local left = sub(sub(window.limit, used(window)), found.held)
    if not free or less(left, free) then free = left end
  end
  return free
end

local function path_room(path, kind)
  local free
  for _, scope in ipairs((along(path))) do
    local one = room(book(scope, kind))
    if one and (not free or less(one, free)) then free = one end
  end
  return free
end

local function change(path, kind, spent, held, over)
  for _, scope in ipairs((along(path))) do
    local found = book(scope, kind)
    if spent then
      found.spent = add(found.spent, spent)
      for _, window in ipairs(found.counted) do window_add(window, spent) end
    end
    if held then found.held = add(found.held, held) end
    if over then found.over = add(found.over, over) end
    dirty[scope .. '\t' .. kind] = true
  end
end

local function log(status, id, path, amounts, expires, actual, over, detail)
  local line = table.concat({int(seq), int(now), status, id, path, amounts, expires, actual, over, detail}, '\t')
  head = redis.sha1hex(head .. line)
  put('RPUSH', JOURNAL, head .. line)
  seq = seq + 1
end

local function read(id)
  local line = records[id]
  if line == nil then line = redis.call('HGET', RESERVATIONS, id) end
  if not line then return nil end
  local f = split(line)
  return {
    id = id, path = f[1], amounts = f[2], expires = f[3], status = f[4], asked = f[5], actual = f[6], over = f[7],
    at = f[8], detail = f[9],
  }
end

local function answer(r)
  return {'OK', r.id, r.path, r.amounts, r.expires, r.status, r.asked, r.actual, r.over, r.at, r.detail}
end

local function write(r, was)  -- was: its status before, nil if there was none
  records[r.id] = table.concat({r.path, r.amounts, r.expires, r.status, r.asked, r.actual, r.over, r.at, r.detail}, '\t')
  put('HSET', RESERVATIONS, r.id, records[r.id])
  if r.status == 'open' then
    put('ZADD', DUE, r.expires, r.id)
    if was and was ~= 'open' then put('ZREM', CLOSED, r.id) end
  else
    if was == 'open' then put('ZREM', DUE, r.id) end
    put('ZADD', CLOSED, r.at, r.id)
  end
  log(r.status, r.id, r.path, r.amounts, r.expires, r.actual, r.over, r.detail)
end

local function close(r, status)
  for _, pair in ipairs(amounts_of(r.amounts)) do change(r.path, pair[1], nil, sub(ZERO, pair[2]), nil) end
  r.status, r.actual, r.over, r.at, r.detail = status, '', '', int(now), ''
  write(r, 'open')
end

local function abandon(r)  -- charged in full, but for what is to be released
  if r.detail == 'release' then return close(r, 'expired') end
  local released, actual = {}, {}
  for kind in string.gmatch(string.sub(r.detail, 9), '%S+') do released[kind] = true end
  for i, pair in ipairs(amounts_of(r.amounts)) do
    actual[i] = {pair[1], released[pair[1]] and ZERO or pair[2]}
    change(r.path, pair[1], actual[i][2], sub(ZERO, pair[2]), nil)
  end
  r.status, r.actual, r.over, r.at, r.detail = 'settled', amounts_text(actual), '', int(now), ABANDONED
  write(r, 'open')
end

local function refused(path, amounts)  -- the outermost limit that does not hold, or nil
  for _, scope in ipairs((along(path))) do
    for _, pair in ipairs(amounts) do
      local kind, units = pair[1], pair[2]
      local found = book(scope, kind)
      local some = less(ZERO, units)  -- 0 units need no room
      if some and found.limit and less(sub(sub(found.limit, found.spent), found.held), units) then
        return {'EXCEEDED', scope, kind, text(units), text(found.limit), text(found.spent), text(found.held), ''}
      end
      for _, window in ipairs(found.windows) do
        local gone = used(window)
        if some and less(sub(sub(window.limit, gone), found.held), units) then
          local reply = {'EXCEEDED', scope, kind, text(units), text(window.limit), text(gone), text(found.held)}
          reply[8], reply[9] = window.name, int(now)
          for index, n in pairs(window.buckets) do reply[#reply + 1] = index .. ':' .. text(n) end
          return reply
        end
      end
    end
  end
end

local function declared(path)
  local kinds, seen = {}, {}
  for _, scope in ipairs((along(path))) do
    for _, limit in ipairs(account(scope)) do
      if not seen[limit[1]] then
        seen[limit[1]] = true
        kinds[#kinds + 1] = limit[1]
      end
    end
  end
  table.sort(kinds)
  return kinds
end

local function same_kinds(a, b)
  if #a ~= #b then return false end
  for i, pair in ipairs(a) do
    if pair[1] ~= b[i][1] then return false end
  end
  return true
end

-- operations

local function open(path, limits)
  local parent = string.match(path, '^(.*)/[^/]*$')
  if parent then
    local scopes, missing = along(parent)
    if not scopes then return {'NOACCOUNT', missing, parent} end
  end
  local before = redis.call('HGET', ACCOUNTS, path)
  if before and (limits == '*' or limits == before) then return {'OK'} end
  if limits == '*' then limits = '' end
  local kinds, limited = {}, {}
  for kind in string.gmatch((before or '') .. ',' .. limits, '([^ ,]+) [^ ,]+ [^ ,]+') do kinds[kind] = true end
  for _, limit in ipairs(limits_of(before) or {}) do
    if limit[3] then limited[limit[1] .. ' ' .. limit[3]] = true end
  end
  put('HSET', ACCOUNTS, path, limits)
  save()  -- what expired in this call
  accounts[path], books, paths = limits_of(limits), {}, {}
  -- a window that is new starts with the most that one of its unit holds, in whatever time zone, else empty, as book()
  -- reads it; one without a limit goes on while something in it counts
  for kind in pairs(kinds) do
    local found, most = book(path, kind), {}
    for _, window in ipairs(found.counted) do
      local unit = unit_of(window.name)
      local gone = unit and used(window)
      if unit and (not most[unit] or less(most[unit], gone)) then most[unit] = gone end
    end
    for _, window in ipairs(found.windows) do
      local unit = unit_of(window.name)
      local more = unit and not limited[kind .. ' ' .. window.name] and sub(most[unit], used(window))
      if more and less(ZERO, more) then window_add(window, more) end
    end
    local counted = {}
    for _, window in ipairs(found.counted) do
      if window.limit or less(ZERO, used(window)) then counted[#counted + 1] = window end
    end
    found.counted = counted
    dirty[path .. '\t' .. kind] = true
  end
  log('account', '', path, '', '0', '', '', limits)
  return {'OK'}
end

local function reserve(id, path, line, ttl, detail)
  local known = read(id)
  if known then
    if known.path ~= path or known.asked ~= line then return {'CONFLICT', known.asked, known.path} end
    if known.status == 'open' or known.status == 'settled' then return answer(known) end
  end
  local scopes, missing = along(path)
  if not scopes then return {'NOACCOUNT', missing, path} end
  local amounts, kinds = amounts_of(line), declared(path)
  local fits = #kinds == #amounts
  for i, pair in ipairs(amounts) do fits = fits and kinds[i] == pair[1] end
  if not fits then return {'KINDS', unpack(kinds)} end
  local refusal = refused(path, amounts)
  if refusal then return refusal end
  for _, pair in ipairs(amounts) do change(path, pair[1], nil, pair[2], nil) end
  local record = {
    id = id, path = path, amounts = line, expires = int(now + tonumber(ttl)), status = 'open', asked = line, actual = '',
    over = '', at = int(now), detail = detail,
  }
  write(record, known and known.status)
  return answer(record)
end

local function settle_late(known, actual, tags)
  local more, grown, over = {}, {}, {}
  for i, pair in ipairs(amounts_of(known.actual)) do
    local larger = less(pair[2], actual[i][2])
    more[i] = {pair[1], larger and sub(actual[i][2], pair[2]) or ZERO}
    grown[i] = {pair[1], larger and actual[i][2] or pair[2]}
    local free = path_room(known.path, pair[1])
    if free and less(free, ZERO) then free = ZERO end
    if free and less(free, more[i][2]) then over[#over + 1] = {pair[1], sub(more[i][2], free)} end
  end
  if amounts_text(grown) == known.actual then return answer(known) end
  for _, pair in ipairs(more) do change(known.path, pair[1], pair[2], nil, nil) end
  for _, pair in ipairs(over) do change(known.path, pair[1], nil, nil, pair[2]) end
  known.actual, known.over, known.at, known.detail = amounts_text(grown), amounts_text(over), int(now), tags
  write(known, 'settled')
  return answer(known)
end

local function settle(id, line, tags)
  local known = read(id)
  if not known then return {'UNKNOWN'} end
  if line == '*' then line = known.amounts end
  if known.status == 'settled' and known.actual == line then return answer(known) end
  local actual, held, over = amounts_of(line), amounts_of(known.amounts), {}
  if not same_kinds(actual, held) then return {'OTHERKINDS', known.amounts} end
  if known.status == 'settled' and known.detail == ABANDONED then return settle_late(known, actual, tags) end
  if known.status == 'settled' then return {'SETTLED', known.actual} end
  local was_open = known.status == 'open'
  for i, pair in ipairs(actual) do
    local had = held[i][2]
    if not was_open then
      had = path_room(known.path, pair[1])
      if had and less(had, ZERO) then had = ZERO end
    end
    if had and less(had, pair[2]) then over[#over + 1] = {pair[1], sub(pair[2], had)} end
  end
  for i, pair in ipairs(actual) do
    change(known.path, pair[1], pair[2], was_open and sub(ZERO, held[i][2]) or nil, nil)
  end
  for _, pair in ipairs(over) do change(known.path, pair[1], nil, nil, pair[2]) end
  known.status, known.actual, known.over, known.at, known.detail = 'settled', line, amounts_text(over), int(now), tags
  write(known, was_open and 'open' or 'closed')
  return answer(known)
end

local function extend(id, line, ttl)
  local known = read(id)
  if not known then return {'UNKNOWN'} end
  if known.status ~= 'open' then return {'NOTOPEN', known.status} end
  local wanted, held, more, totals = amounts_of(line), amounts_of(known.amounts), {}, {}
  if not same_kinds(wanted, held) then return {'OTHERKINDS', known.amounts} end
  for i, pair in ipairs(wanted) do
    local grown = less(held[i][2], pair[2])
    more[i] = {pair[1], grown and sub(pair[2], held[i][2]) or ZERO}
    totals[i] = {pair[1], grown and pair[2] or held[i][2]}
  end
  for _, pair in ipairs(more) do
    local free = less(ZERO, pair[2]) and path_room(known.path, pair[1])
    if free and less(free, pair[2]) then return refused(known.path, more) end
  end
  for _, pair in ipairs(more) do change(known.path, pair[1], nil, pair[2], nil) end
  known.amounts, known.at = amounts_text(totals), int(now)
  known.expires = int(math.max(tonumber(known.expires), now + tonumber(ttl)))
  write(known, 'open')
  return answer(known)
end

local function release(id)
  local known = read(id)
  if not known then return {'UNKNOWN'} end
  if known.status == 'settled' then return {'SETTLED', known.actual} end
  if known.status == 'open' then close(known, 'released') end
  return answer(known)
end

local function remaining(path)
  local scopes, missing = along(path)
  if not scopes then return {'NOACCOUNT', missing, path} end
  local reply = {'OK'}
  for _, kind in ipairs(declared(path)) do
    local free = path_room(path, kind)
    reply[#reply + 1] = kind
    reply[#reply + 1] = free and text(free) or ''
  end
  return reply
end

local function reset(path)
  local scopes, missing = along(path)
  if not scopes then return {'NOACCOUNT', missing, path} end
  now = clock
  for _, key in ipairs(redis.call('HKEYS', BOOKS)) do
    local owner, kind = string.match(key, '^(.*)\t(.*)$')
    if owner == path then
      local found = book(path, kind)
      found.spent, found.over = ZERO, ZERO
      for _, window in ipairs(found.counted) do window.buckets = {} end
      dirty[key] = true
    end
  end
  log('reset', '', path, '', '0', '', '', '')
  return {'OK'}
end

local before_seq = seq
if operation ~= 'reset' then
  now = math.max(now, clock)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', int(now), 'LIMIT', 0, 1000)) do abandon(read(id)) end
  local old = redis.call('ZRANGEBYSCORE', CLOSED, '-inf', int(now - remember), 'LIMIT', 0, 1000)
  if #old > 0 then
    put('HDEL', RESERVATIONS, unpack(old))
    put('ZREM', CLOSED, unpack(old))
    for _, id in ipairs(old) do records[id] = false end
  end
end
local operations = {
  open = open, reserve = reserve, settle = settle, extend = extend, release = release, remaining = remaining, reset = reset,
}
local reply = operations[operation](unpack(ARGV, 6))
if missing and next(missing) then
  local names = {}
  for name in pairs(missing) do names[#names + 1] = name end
  return int(before_seq) .. '\tZONES\t' .. int(now) .. '\t' .. table.concat(names, '\t')
end
if seq ~= before_seq then
  save()
  put('HSET', META, 'seq', int(seq), 'head', head, 'now', int(now))
end
for _, write in ipairs(writes) do redis.call(unpack(write)) end
return int(seq) .. '\t' .. table.concat(reply, '\t')
