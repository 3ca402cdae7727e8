import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { Brucke, Positions, ServerFault, jitter } from "./brucke.js";

const OLD = "0".repeat(32);
const NEW = "7".repeat(32);

const subscribed = (positions, topic_id = OLD) => ({ type: "subscribed", topic_id, positions });
const progress = (to) => ({ type: "progress", to });
const gap = (from, to, reason, topic_id) => ({ type: "gap", partition: 0, from, to, reason, topic_id });
const records = (from, to, offsets, fresh = offsets, partition = 0) => {
  return { type: "records", partition, from, to, records: offsets.map((offset) => ({ offset })), fresh };
};

function feed(positions, frame) {
  switch (frame.type) {
    case "subscribed":
      return positions.handleSubscribed(frame);
    case "progress":
      return positions.handleProgress(frame);
    case "gap":
      return positions.handleGap(frame);
    case "records": {
      const fresh = positions.handleRecords(frame).map((record) => record.offset);
      assert.deepEqual(fresh, frame.fresh, JSON.stringify(frame));
    }
  }
}

/** Feeds a history in which nothing is wrong; it ends at these positions. */
function checkGood(history, end, topic_id = OLD) {
  const positions = new Positions();
  for (const frame of history) feed(positions, frame);
  assert.deepEqual(positions.place, { topic_id, positions: end }, JSON.stringify(history));
}

/** Feeds a history whose last frame, and no other, is wrong. */
function checkBad(history, says) {
  const positions = new Positions();
  for (const frame of history.slice(0, -1)) feed(positions, frame);
  const stood = positions.place;
  const wrong = () => feed(positions, history.at(-1));
  assert.throws(wrong, (fault) => fault instanceof ServerFault && says.test(fault.message));
  assert.deepEqual(positions.place, stood, "a wrong frame moved the positions");
}

test("ranges that join move the position", () => {
  const start = subscribed({ 0: 43, 1: 20 });
  checkGood([start, records(43, 57, [44, 56]), records(57, 58, [57])], { 0: 58, 1: 20 });
  // Holes within a range are of the log: other keys, markers, compaction.
  checkGood([subscribed({ 0: 0 }), records(0, 1_000, [1, 500, 999])], { 0: 1_000 });
  checkGood([start, progress({ 0: 70, 3: 5 }), records(70, 71, [70])], { 0: 71, 1: 20, 3: 5 });
});

test("what lies below the position is a repeat", () => {
  const start = subscribed({ 0: 10 });
  checkGood([start, records(4, 12, [5, 9, 10, 11], [10, 11])], { 0: 12 });
  checkGood([start, records(4, 8, [5, 7], [])], { 0: 10 });
  checkGood([start, progress({ 0: 8 })], { 0: 10 });
  checkGood([start, gap(4, 8, "retention")], { 0: 10 });
});

test("a partition without a position is at its beginning", () => {
  checkGood([subscribed({ 0: 9 }), records(0, 2, [0, 1], [0, 1], 1)], { 0: 9, 1: 2 });
  checkBad([subscribed({ 0: 9 }), records(1, 2, [1], [1], 1)], /partition 1: no frame covers \[0, 1\)/);
});

test("a range above the position is a fault of the server", () => {
  const start = subscribed({ 0: 10 });
  const hole = /no frame covers \[10, 11\)/;
  checkBad([start, records(11, 12, [11])], hole);
  checkBad([start, gap(11, 12, "retention")], hole);
  checkBad([start, gap(11, 3, "truncated")], hole);
  checkBad([start, subscribed({ 0: 11 })], hole);
  checkBad([start, subscribed({ 0: 10 }, NEW)], /became/);
});

test("records outside their range or out of order are a fault of the server", () => {
  const start = subscribed({ 0: 10 });
  checkBad([start, records(10, 12, [12])], /record 12 has no place/);
  checkBad([start, records(10, 12, [9])], /record 9 has no place/);
  checkBad([start, records(10, 14, [12, 11])], /record 11 has no place/);
  checkBad([start, records(10, 14, [11, 11])], /record 11 has no place/);
});

test("a gap covers what is gone", () => {
  const start = subscribed({ 0: 57, 1: 998 });
  checkGood([start, gap(57, 900, "retention"), records(900, 901, [900])], { 0: 901, 1: 998 });
  checkGood([start, gap(57, 12, "truncated"), records(12, 14, [12, 13])], { 0: 14, 1: 998 });
  // The positions of a topic that is no more are forgotten, all of them.
  checkGood([start, gap(57, 0, "topic_recreated", NEW), records(0, 1, [0])], { 0: 1 }, NEW);
});

test("a place that was kept is gone on from", () => {
  const place = { topic_id: OLD, positions: { 0: 57, 1: 998 }, epochs: { 0: [5, 57] } };
  const positions = new Positions(JSON.parse(JSON.stringify(place)));
  assert.deepEqual(positions.place, place);
  positions.handleSubscribed(subscribed({ 0: 57, 1: 998, 2: 0 }));
  assert.deepEqual(positions.place.positions, { 0: 57, 1: 998, 2: 0 });
});

test("the newest that is known of a log is kept beside its position, until a gap", () => {
  const positions = new Positions();
  const known = () => positions.place.epochs;
  positions.handleSubscribed({ ...subscribed({ 0: 5, 1: 2 }), epochs: { 0: [1, 5], 1: [3, 2] } });
  assert.deepEqual(known(), { 0: [1, 5], 1: [3, 2] });
  positions.handleRecords({ ...records(5, 9, [7]), epoch: [2, 8] });
  positions.handleRecords(records(9, 10, [9]));
  assert.deepEqual(known(), { 0: [2, 8], 1: [3, 2] });
  positions.handleProgress({ ...progress({ 0: 12 }), epochs: { 0: [2, 12] } });
  assert.deepEqual(known(), { 0: [2, 12], 1: [3, 2] });
  positions.handleGap(gap(12, 14, "retention"));
  assert.deepEqual(known(), { 0: [2, 12], 1: [3, 2] });
  positions.handleGap(gap(14, 10, "truncated"));
  assert.deepEqual(known(), { 1: [3, 2] });
  positions.handleGap(gap(10, 0, "topic_recreated", NEW));
  assert.equal(known(), undefined);
  // A place that was kept before there were any.
  assert.deepEqual(new Positions({ topic_id: OLD, positions: { 0: 1 } }).place.epochs, undefined);
});

test("waits are spread under a ceiling that doubles", () => {
  const longest = (attempt) => Math.max(...Array.from({ length: 2_000 }, () => jitter(250, attempt)));
  for (const [attempt, ceiling] of [[0, 250], [1, 500], [3, 2_000], [9, 30_000], [99, 30_000]]) {
    const wait = longest(attempt);
    assert.ok(wait <= ceiling && wait > ceiling * 0.95, `attempt ${attempt}: ${wait}`);
  }
});

/** A server's end of one connection. */
class FakeSocket {
  static made = [];
  sent = [];
  closed = false;

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    FakeSocket.made.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  says(...frames) {
    for (const frame of frames) this.onmessage({ data: JSON.stringify(frame) });
  }

  /** The frames of this type that the client has sent. */
  heard(type) {
    return this.sent.filter((frame) => frame.type === type);
  }
}

const welcome = { type: "welcome", connection: "1", tenant: "acme", heartbeat_ms: 25_000 };
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Time that passes when a test says so. */
const clock = { now: 0, timers: new Map(), next: 1 };
const { setTimeout, clearTimeout } = globalThis;

beforeEach(() => {
  FakeSocket.made.length = 0;
  clock.timers.clear();
  globalThis.setTimeout = (run, ms) => {
    clock.timers.set(clock.next, { run, at: clock.now + ms });
    return clock.next++;
  };
  globalThis.clearTimeout = (timer) => clock.timers.delete(timer);
});

afterEach(() => Object.assign(globalThis, { setTimeout, clearTimeout }));

function pass(ms) {
  const until = clock.now + ms;
  for (;;) {
    const due = [...clock.timers].filter(([, timer]) => timer.at <= until);
    if (due.length === 0) break;
    const [name, timer] = due.reduce((one, other) => (other[1].at < one[1].at ? other : one));
    clock.timers.delete(name);
    clock.now = timer.at;
    timer.run();
  }
  clock.now = until;
}

/** Returns a client whose first connection is open, and what it told. */
async function open(options = {}) {
  const told = [];
  const client = new Brucke({
    urls: ["ws://a/v1/ws", "ws://b/v1/ws"],
    token: async () => "secret",
    WebSocket: FakeSocket,
    onState: (state) => told.push(state),
    ...options,
  });
  await settle();
  FakeSocket.made[0].onopen();
  return { client, told, socket: FakeSocket.made[0] };
}

/** Lets the wait pass and returns the next connection, opened. */
async function next(socket) {
  pass(30_000);
  await settle();
  const last = FakeSocket.made.at(-1);
  assert.notEqual(last, socket, "the client did not come back");
  last.onopen();
  return last;
}

/** Subscribes, and keeps what the application is handed. */
function follow(client, wish = {}) {
  const got = { offsets: [], gaps: [], live: 0, faults: [], errors: [] };
  const subscription = client.subscribe({
    channel: "orders",
    onRecords: (records) => got.offsets.push(...records.map((record) => record.offset)),
    onGap: (frame) => got.gaps.push(frame),
    onLive: () => got.live++,
    onFault: (fault) => got.faults.push(fault.message),
    onError: (frame) => got.errors.push(frame.code),
    ...wish,
  });
  return { subscription, got };
}

const begins = (id, sub, positions) => ({ ...subscribed(positions), id, sub, channel: "orders" });
const brings = (sub, from, to, offsets) => ({ ...records(from, to, offsets), sub });

test("a client says who it is, then what it wants", async () => {
  const { client, socket } = await open();
  follow(client, { keys: ["order-17"], from: { ago: "15m" } });
  assert.deepEqual(socket.protocols, ["brucke.v1.json"]);
  assert.deepEqual(socket.sent, [{ type: "authenticate", token: "secret" }]);
  socket.says(welcome);
  const wish = { type: "subscribe", id: 1, channel: "orders", keys: ["order-17"], from: { ago: "15m" } };
  assert.deepEqual(socket.sent.at(-1), wish);
});

test("a cut is gone on from at the next replica, without a loss or a repeat", async () => {
  const { client, told, socket } = await open();
  const { subscription, got } = follow(client);
  socket.says(welcome, begins(1, 7, { 0: 43 }), brings(7, 43, 57, [44, 56]));
  socket.says({ type: "progress", sub: 7, to: { 0: 60 } });
  socket.onclose({ code: 1006, reason: "" });
  const { waitMs, ...waiting } = told.at(-1);
  assert.deepEqual(waiting, { state: "waiting", why: "the connection broke", attempt: 1 });
  assert.ok(waitMs < 2_000);

  const second = await next(socket);
  assert.equal(second.url, "ws://b/v1/ws");
  second.says(welcome);
  const place = { positions: { 0: 60 }, topic_id: OLD };
  assert.deepEqual(second.heard("subscribe")[0].from, place);
  assert.deepEqual(subscription.place, place);
  second.says(begins(1, 9, { 0: 60 }), brings(9, 55, 62, [56, 61]), { type: "live", sub: 9 });
  assert.deepEqual([got.offsets, got.live, got.faults], [[44, 56, 61], 1, []]);
  // The first connection is done with, whatever it still says.
  socket.says(brings(7, 62, 63, [62]));
  assert.deepEqual(got.offsets, [44, 56, 61]);
});

test("a server that passes offsets over is told of, left, and asked again", async () => {
  const { client, socket } = await open();
  const { got } = follow(client);
  socket.says(welcome, begins(1, 7, { 0: 10 }), brings(7, 11, 12, [11]));
  assert.deepEqual([got.offsets, got.faults], [[], ["partition 0: no frame covers [10, 11)"]]);
  assert.ok(socket.closed);
  const second = await next(socket);
  second.says(welcome);
  assert.deepEqual(second.heard("subscribe")[0].from, { positions: { 0: 10 }, topic_id: OLD });
});

test("the table of close codes says whether to come back, and when", async () => {
  for (const code of [1000, 1002, 1003, 1007, 1009, 4006]) {
    const { told, socket } = await open();
    socket.onclose({ code, reason: "" });
    assert.deepEqual(told.at(-1), { state: "closed", code, why: `closed with ${code}` });
    FakeSocket.made.length = 0;
  }
  for (const [code, ceiling] of [[1012, 250], [4003, 250], [4004, 250], [1013, 2_000], [4007, 2_000]]) {
    const { told, socket } = await open();
    mock.method(Math, "random", () => 0.999);
    socket.onclose({ code, reason: "" });
    mock.restoreAll();
    assert.ok(Math.abs(told.at(-1).waitMs - ceiling) < 5, `${code}: ${told.at(-1).waitMs}`);
    FakeSocket.made.length = 0;
  }
});

test("a wait that the server names is taken, once", async () => {
  const { told, socket } = await open();
  socket.says(welcome, { type: "closing", code: "draining", reconnect: true, retry_after_ms: 3_400 });
  socket.onclose({ code: 1012, reason: "draining" });
  assert.equal(told.at(-1).waitMs, 3_400);
  const second = await next(socket);
  second.onclose({ code: 1012, reason: "" });
  assert.ok(told.at(-1).waitMs <= 500);
});

test("a refused token that can't be another ends the client", async () => {
  const { told, socket } = await open({ token: "fixed" });
  socket.onclose({ code: 4002, reason: "authentication_failed" });
  assert.deepEqual(told.at(-1), { state: "closed", code: 4002, why: "authentication_failed" });
});

test("a token is renewed before it ends", async () => {
  const tokens = ["first", "second"];
  const { told, socket } = await open({ token: async () => tokens.shift() });
  socket.says(welcome, { type: "expiring", expires_at: "2026-11-23T10:00:00Z" });
  await settle();
  assert.deepEqual(socket.heard("authenticate").map((frame) => frame.token), ["first", "second"]);
  socket.says({ type: "renewed", expires_at: "2026-11-23T11:00:00Z" });
  assert.deepEqual(told.at(-1), { state: "renewed", expires_at: "2026-11-23T11:00:00Z" });
});

test("a token that can't be fetched is asked for again", async () => {
  let asked = 0;
  const token = async () => (++asked === 1 ? Promise.reject(new Error("offline")) : "secret");
  const told = [];
  new Brucke({ urls: ["ws://a"], token, WebSocket: FakeSocket, onState: (state) => told.push(state) });
  await settle();
  assert.equal(told.at(-1).why, "no token: offline");
  await next(undefined);
  assert.equal(FakeSocket.made.length, 1);
});

test("silence is asked about, and given up", async () => {
  const { told, socket } = await open();
  socket.says(welcome);
  pass(30_000);
  assert.equal(socket.heard("ping").length, 1);
  socket.says({ type: "pong" });
  pass(30_000);
  assert.equal(socket.heard("ping").length, 2);
  assert.equal(told.at(-1).state, "open");
  pass(10_000);
  assert.ok(socket.closed);
  assert.equal(told.find(({ state }) => state === "waiting").why, "silent");
});

test("a request that may succeed later is made again; another is not", async () => {
  const { client, socket } = await open();
  const { got } = follow(client);
  socket.says(welcome, { type: "error", id: 1, code: "unavailable", message: "", retry: true, retry_after_ms: 500 });
  pass(500);
  assert.equal(socket.heard("subscribe").length, 2);
  socket.says(begins(1, 7, { 0: 0 }), { type: "error", sub: 7, code: "revoked", message: "", retry: false });
  pass(5_000);
  assert.deepEqual([got.errors, socket.heard("subscribe").length], [["revoked"], 2]);
});

test("subscribe, unsubscribe, subscribe ends with one subscription that lives", async () => {
  const { client, socket } = await open();
  socket.says(welcome);
  const first = follow(client);
  first.subscription.unsubscribe(); // before the server has answered
  const second = follow(client);
  socket.says(begins(1, 7, { 0: 0 }));
  assert.deepEqual(socket.heard("unsubscribe"), [{ type: "unsubscribe", id: 3, sub: 7 }]);
  socket.says({ type: "error", id: 2, code: "already_subscribed", message: "", retry: false });
  socket.says(brings(7, 0, 1, [0]), { type: "unsubscribed", id: 3, sub: 7 });
  assert.deepEqual(socket.heard("subscribe").map((frame) => frame.id), [1, 2, 2]);
  socket.says(begins(2, 7, { 0: 0 }), brings(7, 0, 2, [0, 1]));
  assert.deepEqual([first.got.offsets, second.got.offsets], [[], [0, 1]]);
});

test("a closed client stays closed", async () => {
  const { client, told, socket } = await open();
  socket.says(welcome);
  follow(client);
  client.close();
  assert.ok(socket.closed);
  pass(60_000);
  await settle();
  assert.deepEqual([FakeSocket.made.length, told.at(-1).state], [1, "closed"]);
});
