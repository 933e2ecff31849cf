-- One call of a gate: gives back, asks, and grants what can be granted. Everything that is checked and taken is so at once.
-- KEYS[1] is the prefix of every key, and has the hash tag. ARGV[1] is the call, as JSON; src/quota/call.rs describes it.
local prefix, q = KEYS[1], cjson.decode(ARGV[1])
local call, day_ms = redis.call, 86400000
local enforce, off = 2, 0

local function text(number) return string.format('%.0f', number) end
local function key(...) return prefix .. ':' .. table.concat({...}, ':') end
-- An end is a time of the server's clock, which may jump: keys outlive a jump of hours, whatever their use needs.
local function keep(name, ms) call('PEXPIRE', name, ms or day_ms) end

-- A gate makes one call after the other. One that arrives after a later one was given up, and its gate has gone on without it.
local calls = key('calls', q.me)
if tonumber(call('GET', calls) or 0) >= q.number then return '{}' end
call('SET', calls, text(q.number), 'PX', day_ms)

-- Time of the fleet: it never goes back, and one call moves it by half a lease at most, while gates call every third of one.
-- A server whose clock jumps, or a replica that is promoted with another clock, neither ends leases nor keeps them.
local server = q.time
if not server then
  local t = call('TIME')
  server = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local clock = call('HMGET', key('clock'), 'server', 'now', 'born', 'gates')
local now, born, gates = tonumber(clock[2]), tonumber(clock[3]), tonumber(clock[4])
if now then
  now = now + math.max(0, math.min(server - tonumber(clock[1]), math.floor(q.lease / 2)))
else
  -- A store that is new, or that lost everything: whoever lives is asked to say what is in flight.
  now, born, gates = server, server, q.gates
  call('PUBLISH', key('to', 'all'), cjson.encode({call = true}))
end
call('HSET', key('clock'), 'server', text(server), 'now', text(now), 'born', text(born), 'gates', gates)
keep(key('clock'))

local alive = key('alive')
call('ZREMRANGEBYSCORE', alive, '-inf', text(now))
local was_known = call('ZSCORE', alive, q.me)
-- A gate that does not know that it was lost here has not said yet what it knows of the past.
local is_emptied = not was_known and not q.hello
if q.stops then call('ZREM', alive, q.me) elseif not is_emptied then call('ZADD', alive, text(now + q.lease), q.me) end
keep(alive)

local reply = {granted = {}, refused = {}, held = {}, owners = {}, lost = 0, is_emptied = is_emptied}
local function tell(replica, message)
  if replica == q.me then return false end
  call('PUBLISH', key('to', replica), cjson.encode(message))
  return true
end

-- bits of the kinds of requests: the same as in src/quota/limit.rs
local function has(groups, bit) return math.floor(groups / bit) % 2 == 1 end
local reports, logs, grants, delegates = 4, 8, 16, 32

local function slots_of(owner)
  local slots = key('o', owner, 'slots')
  call('ZREMRANGEBYSCORE', slots, '-inf', text(now))
  return slots
end
local function day_of(owner, day) return key('o', owner, 'day', text(day or q.day)) end

-- What Metrica's refusals taught: until = no request before; len = the pause, from at; a request in a pause begins it anew.
local function learned(where)
  local all = call('HGETALL', where)
  local known = {}
  for i = 1, #all, 2 do known[all[i]] = tonumber(all[i + 1]) end
  return known
end
-- One slot, or ten percent, comes back after so many quiet milliseconds.
local quiet, rise = 30000, 60000
local function settle_slots(where, known)
  local before = known.fewer or 0
  while (known.fewer or 0) > 0 and now >= known.changed + quiet do
    known.fewer, known.changed = known.fewer - 1, known.changed + quiet
  end
  if known.fewer ~= before and known.fewer then call('HSET', where, 'fewer', known.fewer, 'changed', text(known.changed)) end
end
local function settle_rate(known)
  while known.percent and known.percent < 100 and now >= known.changed + rise do
    known.percent, known.changed = math.min(100, known.percent + 10), known.changed + rise
  end
end
local function pause(where, known, name, first, longest)
  local len, at = known[name .. ':len'] or 0, known[name .. ':at'] or 0
  if len == 0 or now >= at + len then len = math.max(first, math.min(longest, len * 2)) end
  call('HSET', where, name .. ':len', text(len), name .. ':at', text(now), name .. ':until', text(now + len))
  keep(where)
end
local function begin(where, known, name)
  local len = known[name .. ':len']
  if len then call('HSET', where, name .. ':until', text(now + len)) end
end
local function fine(where, known, name, started)
  if known[name .. ':len'] and started > known[name .. ':at'] then
    call('HDEL', where, name .. ':len', name .. ':at', name .. ':until')
  end
end

-- Every limit that counts a request: its name, where its learned state is, and what it is.
local function each(r, act)
  local owner = key('o', r.o, 'learned')
  act('parallel', owner)
  if has(r.g, reports) then act('reports_5m', owner) end
  act('day', owner)
  if has(r.g, delegates) then act('delegates', owner) end
  act('by_ip', key('e', r.e))
  if has(r.g, logs) then act('logs_by_ip', key('e', r.e)) end
  for _, id in ipairs(r.n) do
    act('counter_day', key('c', id, 'learned'), id)
    if has(r.g, grants) then act('grants', key('c', id, 'learned'), id) end
  end
end
local function rate(name, known)
  local limit = q.limits[name]
  local state = {percent = known[name .. ':percent'] or 100, changed = known[name .. ':changed'] or 0}
  settle_rate(state)
  -- In microseconds, rounded as a gate without a store does.
  local interval = math.floor(100000000 / (limit.n * state.percent))
  local burst = state.percent < 100 and 1 or math.max(1, limit.documented - limit.n)
  return state, interval, burst
end

-- When a request has room by one limit: a time, or nil for "when a slot is released".
local function room(r, name, where, id)
  local limit, known = q.limits[name], learned(where)
  local free = math.max(known[name .. ':until'] or 0, known[name .. ':paused'] or 0)
  if name == 'parallel' then
    settle_slots(where, known)
    local slots = slots_of(r.o)
    local most = math.max(1, limit.n - (known.fewer or 0))
    local served = tonumber(call('HGET', key('o', r.o, 'tags'), 'served') or 0)
    local kept = r.k == 2 and now < served + 60000 and most > 1
    if call('ZCARD', slots) + (kept and 1 or 0) < most then return free end
    if kept and call('ZCARD', slots) < most then return served + 60000 end
    return nil
  elseif name == 'by_ip' or name == 'logs_by_ip' then
    local _, interval, burst = rate(name, known)
    return math.max(free, ((known[name .. ':next'] or 0) - (burst - 1) * interval) / 1000)
  elseif name == 'reports_5m' then
    local stamps = key('o', r.o, 'reports')
    call('ZREMRANGEBYSCORE', stamps, '-inf', text(now - 300000))
    local over = call('ZCARD', stamps) - limit.n
    if over < 0 then return free end
    return math.max(free, tonumber(call('ZRANGE', stamps, over, over, 'WITHSCORES')[2]) + 300000)
  end
  local spent, ends
  if name == 'day' then
    spent, ends = call('HGET', day_of(r.o), ''), q.day_ends
  elseif name == 'counter_day' then
    spent, ends = call('GET', key('c', id, 'day', text(q.day))), q.day_ends
  elseif name == 'delegates' then
    spent, ends = call('GET', key('o', r.o, 'delegates', text(q.hour))), q.hour_ends
  else
    spent, ends = call('GET', key('c', id, 'grants', text(q.hour))), q.hour_ends
  end
  if tonumber(spent or 0) >= limit.n then return math.max(free, now + ends) end
  return free
end

-- The caller's own budget that refuses a request: the limit's name and the time until it has room.
local function budget(r)
  if r.d and tonumber(call('HGET', day_of(r.o), 'c:' .. r.c) or 0) >= r.d then return 'day', q.day_ends end
  if r.f and has(r.g, reports) then
    local stamps = key('o', r.o, 'reports', r.c)
    call('ZREMRANGEBYSCORE', stamps, '-inf', text(now - 300000))
    local over = call('ZCARD', stamps) - r.f
    if over >= 0 then
      return 'reports_5m', tonumber(call('ZRANGE', stamps, over, over, 'WITHSCORES')[2]) + 300000 - now
    end
  end
  if q.shares > 0 then
    local limit, all = q.limits.day.n, tonumber(call('HGET', day_of(r.o), '') or 0)
    if all * 100 >= limit * 80 then
      if r.h then
        if tonumber(call('HGET', day_of(r.o), 'c:' .. r.c) or 0) * 100 >= limit * r.h then return 'day', q.day_ends end
      else
        local promised = 0
        for _, caller in ipairs(call('SMEMBERS', key('o', r.o, 'sharing'))) do
          promised = promised + tonumber(call('HGET', day_of(r.o), 'c:' .. caller) or 0)
        end
        if (all - promised) * 100 >= limit * (100 - q.shares) then return 'day', q.day_ends end
      end
    end
  end
end

-- The limit that holds a request: its name and when it has room. With no slot, another time tells nothing yet.
local function blocked(r)
  local name_of, at, on_release
  each(r, function(name, where, id)
    if q.limits[name].mode ~= enforce then return end
    local free = room(r, name, where, id)
    if not free then
      on_release = name
    elseif free > now and (not at or free > at) then
      name_of, at = name, free
    end
  end)
  if on_release then return on_release, nil end
  return name_of, at
end

local function add(name, by, ttl)
  if call('INCRBY', name, by) < 0 then call('SET', name, 0) end
  keep(name, ttl)
end
-- The time of a report tells its request: the same one is added once, and only it is removed.
local function stamp(r, by)
  if not has(r.g, reports) then return end
  for _, stamps in ipairs({key('o', r.o, 'reports'), key('o', r.o, 'reports', r.c)}) do
    if by > 0 then call('ZADD', stamps, text(now), r.id) else call('ZREM', stamps, r.id) end
    -- Nobody else removes them where no limit and no budget holds.
    call('ZREMRANGEBYSCORE', stamps, '-inf', text(now - 300000))
    keep(stamps)
  end
end
local function count(r, by, hour)
  local day = math.floor(hour / 24)
  local days = day_of(r.o, day)
  each(r, function(name, where, id)
    local limit = q.limits[name]
    if limit.mode == off and name ~= 'parallel' then return end
    if name == 'day' then
      if call('HINCRBY', days, '', by) < 0 then call('HSET', days, '', 0) end
    elseif name == 'counter_day' then
      add(key('c', id, 'day', text(day)), by, 2 * day_ms)
    elseif name == 'delegates' then
      add(key('o', r.o, 'delegates', text(hour)), by)
    elseif name == 'grants' then
      add(key('c', id, 'grants', text(hour)), by)
    elseif name == 'reports_5m' then
      stamp(r, by)
    elseif by > 0 and (name == 'by_ip' or name == 'logs_by_ip') then
      local known = learned(where)
      local state, interval = rate(name, known)
      call('HSET', where, name .. ':next', text(math.max(known[name .. ':next'] or 0, now * 1000) + interval),
        name .. ':percent', state.percent, name .. ':changed', text(state.changed))
      keep(where)
    end
    if by > 0 then begin(where, learned(where), name) end
  end)
  if call('HINCRBY', days, 'c:' .. r.c, by) < 0 then call('HSET', days, 'c:' .. r.c, 0) end
  keep(days, 2 * day_ms)
end
-- What is spent is at least what a gate knows of: a store that comes back empty forgets nothing that one of them saw.
local function at_least(name, spent, ttl)
  if spent and tonumber(call('GET', name) or 0) < spent then call('SET', name, spent) end
  if spent then keep(name, ttl) end
end
local function restore(r)
  local days = day_of(r.o)
  if tonumber(call('HGET', days, '') or 0) < r.d then call('HSET', days, '', r.d) end
  for caller, spent in pairs(r.c) do
    if tonumber(call('HGET', days, 'c:' .. caller) or 0) < spent then call('HSET', days, 'c:' .. caller, spent) end
  end
  keep(days, 2 * day_ms)
  at_least(key('o', r.o, 'delegates', text(q.hour)), r.h)
  for caller, all in pairs(r.r or {}) do
    for _, stamps in ipairs({key('o', r.o, 'reports'), key('o', r.o, 'reports', caller)}) do
      for id, age in pairs(all) do call('ZADD', stamps, 'NX', text(now - age), id) end
      keep(stamps)
    end
  end
end
local function restore_counter(r)
  at_least(key('c', r.id, 'day', text(q.day)), r.d, 2 * day_ms)
  at_least(key('c', r.id, 'grants', text(q.hour)), r.h)
end

local function take(r)
  local slots, tags = slots_of(r.o), key('o', r.o, 'tags')
  call('ZADD', slots, text(now + q.lease), r.id)
  keep(slots)
  call('HSET', tags, 'v', text(r.tag), 'c:' .. r.c, text(r.tag + r.s))
  if r.k ~= 2 then call('HSET', tags, 'served', text(now)) end
  keep(tags)
  count(r, 1, q.hour)
  local counted = key('o', r.o, 'counted')
  call('ZADD', counted, q.hour, r.id)
  keep(counted, 2 * day_ms)
end
-- What was counted here, and by which hour, is known by the id of its request, until that ends. Nothing else is taken off: not
-- what its gate granted without this store, nor what this store counted before it lost everything.
local function uncount(r)
  local counted = key('o', r.o, 'counted')
  local hour = call('ZSCORE', counted, r.id)
  if hour and call('ZREM', counted, r.id) == 1 then
    count(r, -1, tonumber(hour))
    local tags = key('o', r.o, 'tags')
    local finish = tonumber(call('HGET', tags, 'c:' .. r.c) or 0)
    call('HSET', tags, 'c:' .. r.c, text(math.max(0, finish - r.s)))
  end
  stamp(r, -1)
end

local function first(lists)
  local best
  for class = 0, 2 do
    local one = lists[class][#lists[class]]
    if one then
      local wins = not best or ((one.tag < best.tag or (one.tag == best.tag and one.since < best.since))
        and now - one.since >= 10000 * (one.k - best.k))
      if wins then best = one end
    end
  end
  if best then table.remove(lists[best.k]) end
  return best
end

local function last_first(one, other)
  if one.tag ~= other.tag then return one.tag > other.tag end
  if one.since ~= other.since then return one.since > other.since end
  return one.id > other.id
end
-- Each grant moves the turns of those that still wait, as at a gate without a store: nobody is before the virtual time, and a second
-- request of a caller, which waits at another gate, comes one step later.
local function move_on(lists, granted)
  for class = 0, 2 do
    local moved = false
    for _, r in ipairs(lists[class]) do
      local tag = math.max(r.tag, granted.tag + (r.c == granted.c and granted.s or 0))
      if tag ~= r.tag then r.tag, moved = tag, true end
    end
    if moved then table.sort(lists[class], last_first) end
  end
end

-- Grants what can be granted to the requests that wait for one owner, in the order of service.
local function look(owner)
  local asks = key('o', owner, 'asks')
  local lists, waiting = {[0] = {}, {}, {}}, call('HGETALL', asks)
  if #waiting > 0 then
    local known = call('HGETALL', key('o', owner, 'tags'))
    local tags = {}
    for i = 1, #known, 2 do tags[known[i]] = tonumber(known[i + 1]) end
    for i = 1, #waiting, 2 do
      local r = cjson.decode(waiting[i + 1])
      if not call('ZSCORE', alive, r.r) then
        call('HDEL', asks, r.id)
      else
        r.tag = math.max(tags.v or 0, tags['c:' .. r.c] or 0)
        table.insert(lists[r.k], r)
      end
    end
    for class = 0, 2 do
      table.sort(lists[class], last_first)
    end
  end
  -- What holds requests of one kind holds all of them, until another one takes a place.
  local known, wakes = {}, {}
  while true do
    local r = first(lists)
    if not r then break end
    local limit, ms = nil, nil
    if q.budgets == enforce then limit, ms = budget(r) end
    if limit then
      call('HDEL', asks, r.id)
      local told = {id = r.id, limit = limit, ms = ms}
      if not tell(r.r, {refused = told}) then table.insert(reply.refused, told) end
    else
      local kind = table.concat({r.k, r.g, r.e, table.concat(r.n, ',')}, '|')
      if not known[kind] then
        local name, at = blocked(r)
        known[kind] = {name = name, at = at}
      end
      local name, at = known[kind].name, known[kind].at
      if not name then
        call('HDEL', asks, r.id)
        take(r)
        move_on(lists, r)
        known = {}
        local days = day_of(owner)
        local told = {id = r.id, today = q.day, day = tonumber(call('HGET', days, '') or 0), mine = tonumber(call('HGET', days, 'c:' .. r.c) or 0)}
        if not tell(r.r, {granted = told}) then table.insert(reply.granted, told) end
      else
        if at then
          wakes[r.r] = math.min(wakes[r.r] or at, at)
          if r.r == q.me then table.insert(reply.held, {id = r.id, limit = name, ms = math.max(1, math.ceil(at - now))}) end
        end
        -- Nobody has a slot before one is released; what is kept from batch is not kept from others.
        if name == 'parallel' and r.k ~= 2 then break end
      end
    end
  end
  for replica, at in pairs(wakes) do
    wakes[replica] = math.max(1, math.ceil(at - now))
    tell(replica, {wake = wakes[replica], owner = owner})
  end
  if call('EXISTS', asks) == 1 then keep(asks) end
  table.insert(reply.owners, {
    owner = owner, wake = wakes[q.me], today = q.day,
    day = tonumber(call('HGET', day_of(owner), '') or 0),
  })
end

-- Metrica refused a request because of a limit.
local function learn(r)
  local name, places = r.limit, {key('o', r.o, 'learned')}
  if name == 'by_ip' or name == 'logs_by_ip' then
    places = {key('e', r.e)}
  elseif name == 'counter_day' or name == 'grants' then
    places = {}
    for _, id in ipairs(r.n) do table.insert(places, key('c', id, 'learned')) end
  end
  for _, where in ipairs(places) do
    local known = learned(where)
    if name == 'parallel' then
      settle_slots(where, known)
      if q.limits.parallel.n - (known.fewer or 0) > 1 then
        call('HSET', where, 'fewer', (known.fewer or 0) + 1)
      else
        pause(where, known, name, 1000, 30000)
      end
      call('HSET', where, 'changed', text(now))
    elseif name == 'by_ip' or name == 'logs_by_ip' then
      local state = rate(name, known)
      if now >= (known[name .. ':paused'] or 0) then
        call('HSET', where, name .. ':percent', math.max(30, math.floor(state.percent * 7 / 10)), name .. ':paused', text(now + 1000))
      end
      call('HSET', where, name .. ':changed', text(now))
    elseif r.full then
      call('HSET', where, name .. ':until', text(now + r.full))
    else
      pause(where, known, name, 30000, 960000)
    end
    keep(where)
  end
end

local owners = {}
local function touch(owner) owners[owner] = true end

-- Before anything that is in flight is compared: a request that was not sent gives back what it took.
for _, r in ipairs(q.leave or {}) do
  if call('HDEL', key('o', r.o, 'asks'), r.id) == 0 then
    call('ZREM', slots_of(r.o), r.id)
    uncount(r)
  end
  touch(r.o)
end
if q.hello then
  -- A gate that comes back knows nothing of what it asked for before, and has in flight what it says.
  local held = {}
  for _, r in ipairs(q.hold or {}) do
    for _, id in ipairs(r.ids) do held[id] = true end
  end
  for _, owner in ipairs(q.hello) do
    local asks = key('o', owner, 'asks')
    local all = call('HGETALL', asks)
    for i = 1, #all, 2 do
      if cjson.decode(all[i + 1]).r == q.me then call('HDEL', asks, all[i]) end
    end
    call('ZREMRANGEBYSCORE', key('o', owner, 'counted'), '-inf', q.hour - 24)
    local slots = slots_of(owner)
    for _, id in ipairs(call('ZRANGE', slots, 0, -1)) do
      if string.sub(id, 1, #q.me + 1) == q.me .. '.' and not held[id] then call('ZREM', slots, id) end
    end
  end
end
for _, r in ipairs(q.abandoned or {}) do
  call('ZADD', key('o', r.o, 'slots'), text(now + r.ms), r.id)
  keep(key('o', r.o, 'slots'))
end
for _, r in ipairs(q.done or {}) do
  local slots = slots_of(r.o)
  if r.later then call('ZADD', slots, 'XX', text(now + r.later), r.id) else call('ZREM', slots, r.id) end
  call('ZREM', key('o', r.o, 'counted'), r.id)
  if r.k ~= 2 then call('HSET', key('o', r.o, 'tags'), 'served', text(now)) end
  if r.fine then
    each(r, function(name, where) fine(where, learned(where), name, now - r.fine) end)
  end
  touch(r.o)
end
for _, r in ipairs(q.learn or {}) do
  -- A gate tells it again for a minute, also if only the answer was lost. By the time of the fleet, ten are enough, whatever the
  -- clock of the server does.
  local told = key('o', r.o, 'told')
  call('ZREMRANGEBYSCORE', told, '-inf', text(now - 600000))
  if call('ZADD', told, text(now), r.id) == 1 then learn(r) end
  keep(told)
  touch(r.o)
end
for _, r in ipairs(q.hold or {}) do
  -- Its gate knows that the request is in flight, whatever was lost here.
  local slots = key('o', r.o, 'slots')
  for _, id in ipairs(r.ids) do
    -- A gate that comes back says what it has: nothing of that was lost here.
    if call('ZADD', slots, text(now + q.lease), id) == 1 and not q.hello then reply.lost = reply.lost + 1 end
  end
  keep(slots)
end
for _, r in ipairs(q.restore or {}) do restore(r) end
for _, r in ipairs(q.counters or {}) do restore_counter(r) end
for _, r in ipairs(q.ask or {}) do
  local score = call('ZSCORE', slots_of(r.o), r.id)
  if score then
    local days = day_of(r.o)
    table.insert(reply.granted, {id = r.id, today = q.day, day = tonumber(call('HGET', days, '') or 0), mine = tonumber(call('HGET', days, 'c:' .. r.c) or 0)})
  else
    r.r, r.since, r.w = q.me, now - r.w, nil
    call('HSET', key('o', r.o, 'asks'), r.id, cjson.encode(r))
  end
  if r.h then
    call('SADD', key('o', r.o, 'sharing'), r.c)
    keep(key('o', r.o, 'sharing'))
  end
  touch(r.o)
end
for _, owner in ipairs(q.look or {}) do touch(owner) end

-- Nothing is granted before every gate has said what it has in flight: those that were there, or whoever has come within
-- half a lease.
reply.learning = math.max(0, born + math.floor(q.lease / 2) - now)
if reply.learning > 0 and gates > 0 and call('ZCARD', alive) >= gates then
  reply.learning = 0
  call('HSET', key('clock'), 'gates', 0, 'born', text(born - q.lease))
  call('PUBLISH', key('to', 'all'), cjson.encode({look = true}))
end
if reply.learning == 0 then
  local names = {}
  for owner in pairs(owners) do table.insert(names, owner) end
  table.sort(names)
  for _, owner in ipairs(names) do look(owner) end
end
reply.replicas = call('ZCARD', alive)
-- An empty table would become an object.
for _, list in ipairs({'granted', 'refused', 'held', 'owners'}) do
  if #reply[list] == 0 then reply[list] = nil end
end
return cjson.encode(reply)
