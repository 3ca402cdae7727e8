// The page of `brucke demo`: follows a channel through brucke.js, shows what
// arrives, has the connection cut, and shows how it goes on.

import { Brucke } from "./brucke.js";
import { OFFSETS_SHOWN, REPLICAS, drawBridge, drawRanges } from "./drawing.js";

const CHANNELS = {
  orders: "Each tenant has a topic of its own.",
  couriers: "One topic for all tenants; a header of each record says whose it is.",
  prices: "Every tenant may see every record.",
};
const PREFIXES = { orders: { acme: "at-", globex: "de-", initech: "ch-" }, couriers: "bike-", prices: "EUR" };
const ROWS_MAX = 40;
const LOG_MAX = 7;
const KEYS_MAX = 200;
const DRAW_MS = 50;
const PULSE_MS = 450;

const $ = (id) => document.getElementById(id);
const facts = await (await fetch("/demo.json")).json();
/** Names this page's way to the replicas: the demo cuts it, and no other page's. */
const wire = crypto.randomUUID();
const urls = facts.replicas.map((_, index) => `ws://${location.host}/replicas/${index}/${wire}`);
const replicaName = (via) => `replica ${REPLICAS[via % REPLICAS.length].toUpperCase()}`;
const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9_950 ? 2 : 1)} s`;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** One choice of tenant, channel and keys, followed until the next. */
class Session {
  state = "connecting";
  via = 0; // the replica, by its number
  ranges = new Map(); // partition -> the newest ranges, joined
  counts = { frames: 0, records: 0, repeats: 0, gaps: 0, holes: 0 };
  /** From a cut until the client is live again. */
  outage = null;
  pulsedAt = 0;

  constructor({ tenant, wish }) {
    this.client = new Brucke({
      urls,
      token: async () => {
        const answer = await fetch(`/token?tenant=${tenant}`);
        if (!answer.ok) throw new Error(await answer.text());
        return answer.text();
      },
      onState: (state) => this.handleState(state),
      onError: (frame) => note(`${frame.code}: ${frame.message}`),
    });
    this.subscription = this.client.subscribe({
      ...wish,
      onSubscribed: (frame) => this.handleSubscribed(frame),
      onRecords: (records, frame) => this.handleRecords(records, frame),
      onProgress: (frame) => this.handleProgress(frame),
      onGap: (frame) => this.handleGap(frame),
      onLive: () => this.handleLive(),
      onFault: (fault) => this.handleFault(fault),
      onError: (frame) => note(`${frame.code}: ${frame.message}`),
    });
  }

  handleState({ state, url, why, waitMs, connection }) {
    if (state === "renewed") return note("the token was renewed; nothing was interrupted");
    this.state = state;
    if (state === "connecting") this.via = urls.indexOf(url);
    if (state === "connecting" && this.outage) this.outage.attempts += 1;
    if (state === "open") note(`${replicaName(this.via)} says welcome (connection ${connection})`);
    if (state === "waiting") {
      this.outage ??= { at: performance.now(), from: this.via, attempts: 0 };
      note(`${why}; next attempt in ${seconds(waitMs)}`);
    }
    if (state === "closed" && session !== this) return; // another choice was made
    if (state === "closed") note(`closed: ${why}`);
    const text = {
      connecting: `connecting to ${replicaName(this.via)}`,
      open: `catching up from ${replicaName(this.via)}`,
      waiting: why,
      closed: "closed",
    };
    pill(state, text[state]);
  }

  handleSubscribed({ positions }) {
    for (const [partition, start] of Object.entries(positions)) {
      if (!this.ranges.has(partition)) this.ranges.set(partition, { next: start, list: [] });
    }
    if (!this.outage) return;
    Object.assign(this.outage, { caughtUp: 0, frames: 0, gaps: 0 });
    const text = `${replicaName(this.via)} goes on where ${replicaName(this.outage.from)} was cut off`;
    showSeam(text, this.via);
    note(text);
  }

  handleRecords(records, frame) {
    const offsets = records.map((record) => record.offset);
    this.cover(frame.partition, frame.to, { offsets });
    this.counts.records += records.length;
    this.counts.repeats += frame.records.length - records.length;
    if (this.outage) this.outage.caughtUp += records.length;
    if (performance.now() - this.pulsedAt > PULSE_MS) this.pulsedAt = performance.now();
    for (const record of records) {
      keep(record.key);
      showRecord(record, frame.partition, this.via, this.outage !== null);
    }
  }

  handleProgress({ to }) {
    for (const [partition, next] of Object.entries(to)) this.cover(partition, next, { offsets: [] });
  }

  handleGap({ partition, from, to, reason }) {
    this.counts.gaps += 1;
    if (this.outage) this.outage.gaps += 1;
    this.cover(partition, to, { offsets: [], gap: true });
    note(`gap in partition ${partition}: [${from}, ${to}) is gone (${reason})`);
  }

  /** Notes that all up to `to` is accounted for: brucke.js has checked that it joins. */
  cover(partition, to, details) {
    this.counts.frames += 1;
    if (this.outage) this.outage.frames += 1;
    const ranges = this.ranges.get(String(partition)) ?? { next: 0, list: [] };
    this.ranges.set(String(partition), ranges);
    ranges.list.push({ from: ranges.next, to, via: this.via, ...details });
    ranges.next = to;
    while (ranges.list[0].to < to - OFFSETS_SHOWN) ranges.list.shift();
  }

  handleLive() {
    this.state = "live";
    pill("live", `live from ${replicaName(this.via)}`);
    if (this.outage) showResume(this.outage, this.via);
    this.outage = null;
  }

  handleFault(fault) {
    this.counts.holes += 1;
    note(fault.message);
    $("resume").dataset.outcome = "broken";
    $("resume").querySelector(".lead").textContent = `The server broke its promise: ${fault.message}`;
  }
}

let session;

/** Follows what is chosen now. */
function follow() {
  const before = session;
  session = null;
  before?.client.close();
  const { tenant, channel } = choice;
  const { kind, text, from } = Object.fromEntries(new FormData($("keys")));
  const keys = { every: undefined, one: [text], prefix: { prefix: text } }[kind];
  const wish = { channel, keys: text || kind === "every" ? keys : undefined, from };
  $("keys").dataset.kind = kind;
  $("records").replaceChildren();
  $("empty").hidden = false;
  $("positions").replaceChildren();
  $("rule").textContent = CHANNELS[channel];
  $("request").textContent = JSON.stringify({ type: "subscribe", id: 1, ...wish });
  resetResume();
  session = new Session({ tenant, wish });
}

const choice = { tenant: facts.tenants[0].name, channel: "orders" };

function offer(place, name, options) {
  for (const [value, title] of options) {
    const button = element("button", value);
    Object.assign(button, { type: "button", title, value });
    button.setAttribute("aria-pressed", choice[name] === value);
    button.addEventListener("click", () => {
      choice[name] = value;
      for (const other of place.querySelectorAll("button")) {
        other.setAttribute("aria-pressed", other === button);
      }
      chooseKeys("every", "");
    });
    place.append(button);
  }
}

function chooseKeys(kind, text) {
  const { elements } = $("keys");
  elements.kind.value = kind;
  elements.text.value = text;
  $("seen").replaceChildren();
  follow();
}

offer($("tenants"), "tenant", facts.tenants.map(({ name, city }) => [name, city]));
offer($("channels"), "channel", Object.entries(CHANNELS));

$("keys").addEventListener("change", ({ target }) => {
  const { elements } = $("keys");
  if (target === elements.kind && elements.kind.value === "prefix") {
    const prefix = PREFIXES[choice.channel];
    elements.text.value = prefix[choice.tenant] ?? prefix;
  } else if (target === elements.kind) {
    elements.text.value = $("seen").firstChild?.value ?? "";
  }
  follow();
});
$("keys").addEventListener("submit", (event) => event.preventDefault());

$("cut").addEventListener("click", async () => {
  const lasting = $("lasting").value;
  session.outage ??= { at: performance.now(), from: session.via, attempts: 0 };
  note(`the wire to ${replicaName(session.via)} is cut, and neither end is told`);
  await fetch(`/cut?wire=${wire}&ms=${lasting}`, { method: "POST" });
});

$("restart").addEventListener("click", async () => {
  note(`${replicaName(session.via)} is told to restart`);
  await fetch(`/restart?replica=${session.via}`, { method: "POST" });
});

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function keep(key) {
  const seen = $("seen");
  if (key === undefined || seen.childElementCount >= KEYS_MAX) return;
  if (![...seen.children].some((option) => option.value === key)) {
    seen.append(Object.assign(element("option"), { value: key }));
  }
}

function showRecord(record, partition, via, late) {
  const row = element("tr", "", late ? "late" : "");
  row.dataset.via = via % REPLICAS.length;
  row.record = record;
  const place = element("td");
  place.append(element("i"), `P${partition}`);
  const key = element("td");
  const pick = Object.assign(element("button", record.key ?? "none"), { type: "button", title: "Follow this key" });
  pick.addEventListener("click", () => chooseKeys("one", record.key));
  key.append(pick);
  row.append(place, element("td", record.offset), key, valueCell(record), element("td"));
  showRow(row);
}

/** A JSON value in colours; it is text, whatever it holds. */
function valueCell({ value, value_base64 }) {
  const cell = element("td");
  if (value === null) cell.append(element("span", "tombstone: the key was cleared", "tombstone"));
  else if (value === undefined) cell.append(value_base64);
  else {
    Object.entries(value).forEach(([name, part]) => {
      const kind = typeof part === "number" ? "number" : "text";
      const written = typeof part === "string" ? part : JSON.stringify(part);
      cell.append(element("span", `${name} `, "name"), element("span", written, kind));
    });
  }
  return cell;
}

function showSeam(text, via) {
  const row = element("tr", "", "seam");
  row.dataset.via = via % REPLICAS.length;
  row.append(Object.assign(element("td", text), { colSpan: 5 }));
  showRow(row);
}

function showRow(row) {
  $("empty").hidden = true;
  const rows = $("records");
  rows.prepend(row);
  while (rows.childElementCount > ROWS_MAX) rows.lastChild.remove();
}

function showAges() {
  for (const row of $("records").children) {
    if (!row.record?.timestamp) continue;
    const age = Math.max(0, Date.now() - row.record.timestamp) / 1000;
    row.lastChild.textContent = age < 60 ? `${age.toFixed(1)} s` : `${Math.floor(age / 60)} min`;
  }
}

function showResume({ at, from, attempts, caughtUp, frames, gaps }, via) {
  const place = $("resume");
  place.dataset.outcome = "resumed";
  const elsewhere = via === from ? "at the same replica" : `at ${replicaName(via)}`;
  place.querySelector(".lead").textContent =
    `Went on ${elsewhere} where it stopped, at the ${["", "first", "second", "third"][attempts] ?? `${attempts}th`} attempt.`;
  place.querySelector("dl").replaceChildren(
    ...facet("back after", seconds(performance.now() - at)),
    ...facet("records caught up", caughtUp.toLocaleString("en")),
    ...facet("ranges joined", `✓ ${frames} of ${frames}`, "good"),
    ...facet("gaps", gaps === 0 ? "none" : String(gaps), gaps === 0 ? "good" : "bad"),
  );
  note(`live again: ${count(caughtUp, "record")} caught up, ${gaps === 0 ? "no gap" : count(gaps, "gap")}`);
}

function resetResume() {
  const place = $("resume");
  place.dataset.outcome = "none";
  place.querySelector(".lead").textContent =
    "Cut the connection and watch it go on where it stopped, at the other replica.";
  place.querySelector("dl").replaceChildren();
}

function facet(name, text, className) {
  const group = element("div");
  group.append(element("dt", name), element("dd", text, className));
  return [group];
}

function showPositions({ ranges }) {
  const list = $("positions");
  const partitions = [...ranges.keys()].sort((one, other) => one - other);
  partitions.forEach((partition, index) => {
    let item = list.children[index];
    if (item?.dataset.partition !== partition) {
      item = element("li");
      item.dataset.partition = partition;
      item.append(element("span", `P${partition}`), element("canvas"), element("span"));
      list.insertBefore(item, list.children[index] ?? null);
    }
    const { next, list: joined } = ranges.get(partition);
    item.lastChild.textContent = next.toLocaleString("en");
    drawRanges(item.children[1], joined, next);
  });
}

function showCounts({ counts, subscription }) {
  $("place").textContent = JSON.stringify({ from: subscription.place ?? subscription.wish.from });
  $("counts").replaceChildren(
    ...facet("records", counts.records.toLocaleString("en")),
    ...facet("ranges joined", counts.frames.toLocaleString("en")),
    ...facet("repeats", String(counts.repeats)),
    ...facet("holes", counts.holes === 0 ? "none" : String(counts.holes), counts.holes ? "bad" : "good"),
  );
}

function pill(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
}

function note(text) {
  const item = element("li");
  item.append(element("time", new Date().toLocaleTimeString("en-GB")), element("span", text));
  $("log").prepend(item);
  while ($("log").childElementCount > LOG_MAX) $("log").lastChild.remove();
}

function draw() {
  const pulse = Math.min(1, (performance.now() - session.pulsedAt) / PULSE_MS);
  drawBridge($("bridge"), { replicas: facts.replicas, via: session.via, state: session.state, pulse });
  showPositions(session);
  showCounts(session);
  showAges();
}

follow();
setInterval(() => requestAnimationFrame(draw), DRAW_MS);
