// Brücke in a browser: follows channels over one WebSocket, goes on where it
// stopped after every cut, and proves that no offset was passed over. One file,
// no dependencies, no build step. The protocol is that of docs/protocol.md.

/** The server left offsets unaccounted for: a bug of the server's, never of the network's. */
export class ServerFault extends Error {}

/** The client's rule: the ranges of one subscription join without a hole. Pure. */
export class Positions {
  #topicId = null;
  #next = new Map(); // partition -> the next offset wanted
  #epochs = new Map(); // partition -> what the server last said of its log; sent back as it came

  /** Begins at a `place` that was kept, or with the first `subscribed`. */
  constructor(place = null) {
    if (place) this.#begin(place.topic_id, place.positions, place.epochs);
  }

  /** Where to go on, as plain data to keep; `null` before the first `subscribed`. */
  get place() {
    if (this.#topicId === null) return null;
    const place = { topic_id: this.#topicId, positions: Object.fromEntries(this.#next) };
    if (this.#epochs.size > 0) place.epochs = Object.fromEntries(this.#epochs);
    return place;
  }

  /** The next offset wanted; a partition that was never heard of is at its beginning. */
  of(partition) {
    return this.#next.get(Number(partition)) ?? 0;
  }

  handleSubscribed({ topic_id, positions, epochs }) {
    if (this.#topicId === null) return this.#begin(topic_id, positions, epochs);
    if (topic_id !== this.#topicId) {
      throw new ServerFault(`topic ${this.#topicId} became ${topic_id}, and no gap said so`);
    }
    const starts = Object.entries(positions);
    for (const [partition, start] of starts) this.#check(partition, start);
    // A partition that is new to the client is known from now on.
    for (const [partition, start] of starts) this.#advance(partition, start);
  }

  /** Takes a `records` frame; returns the records that are new to the application. */
  handleRecords({ partition, from, to, records, epoch }) {
    this.#check(partition, from);
    let least = from;
    for (const { offset } of records) {
      if (offset < least || offset >= to) {
        const range = `[${from}, ${to})`;
        throw new ServerFault(`partition ${partition}: record ${offset} has no place in ${range}`);
      }
      least = offset + 1;
    }
    const position = this.of(partition);
    this.#advance(partition, to);
    if (epoch) this.#epochs.set(Number(partition), epoch);
    return records.filter((record) => record.offset >= position);
  }

  handleProgress({ to, epochs = {} }) {
    for (const [partition, next] of Object.entries(to)) this.#advance(partition, next);
    for (const [partition, epoch] of Object.entries(epochs)) this.#epochs.set(Number(partition), epoch);
  }

  handleGap({ partition, from, to, reason, topic_id }) {
    if (reason !== "topic_recreated") this.#check(partition, from);
    // All positions spoke of a topic that is no more.
    else if (topic_id !== this.#topicId) this.#begin(topic_id, {});
    if (reason === "retention" || reason === "skipped") this.#advance(partition, to);
    else {
      this.#next.set(Number(partition), to);
      this.#epochs.delete(Number(partition)); // it spoke of what is gone
    }
  }

  #begin(topicId, positions, epochs = {}) {
    const numbered = (named) => new Map(Object.entries(named).map(([name, of]) => [Number(name), of]));
    this.#topicId = topicId;
    this.#next = numbered(positions);
    this.#epochs = numbered(epochs);
  }

  #check(partition, from) {
    const position = this.of(partition);
    if (from <= position) return;
    throw new ServerFault(`partition ${partition}: no frame covers [${position}, ${from})`);
  }

  #advance(partition, to) {
    this.#next.set(Number(partition), Math.max(this.of(partition), to));
  }
}

/** How long to wait before attempt number `attempt`: anything up to a ceiling that doubles. */
export function jitter(ceilingMs, attempt) {
  return Math.random() * Math.min(WAIT_MS_MAX, ceilingMs * 2 ** Math.min(attempt, 16));
}

/** One channel with one choice of keys, over as many connections as it takes. */
export class Subscription {
  /** What to show the server, or another tab, or the next page load, to go on here. */
  get place() {
    return this.positions.place;
  }

  /** Ends it; no handler is called again. */
  unsubscribe() {
    this.client.unsubscribe(this);
  }

  constructor(client, { channel, keys, from, on_gap, ...handlers }) {
    const place = from?.positions ? from : null;
    Object.assign(this, { client, handlers, positions: new Positions(place), sub: null, attempt: 0 });
    this.wish = { channel, keys, from, on_gap }; // what is undefined is not sent
  }
}

/** A connection that comes back: to one replica after the other, with jittered waits. */
export class Brucke {
  #options;
  #subscriptions = new Map(); // request id -> Subscription
  #bySub = new Map(); // the server's number on this connection -> Subscription
  #leaving = new Set(); // ids of requests to unsubscribe that are not answered yet
  #refused = new Set(); // subscriptions that wait for one of those
  #socket = null;
  #state = "closed";
  #silenceMs = 30_000;
  #timer; // of the next attempt
  #silence; // of the next sign of life
  #told; // when to come back, if the server said
  #attempt = 0;
  #turn = 0;
  #id = 0;

  /**
   * `urls`: addresses of replicas. `token`: text, or better a function that
   * fetches a fresh one; without it, nobody in particular connects.
   * `onState({state, …})`: connecting, open, renewed, waiting or closed.
   * `onError(frame)`: what the server refuses of the connection itself.
   */
  constructor({ urls, token = null, onState, onError, WebSocket = globalThis.WebSocket }) {
    this.#options = { urls, token, onState, onError, WebSocket };
    this.#connect();
  }

  /**
   * Follows a channel. `keys`, `from` and `on_gap` as in the protocol; all
   * handlers are optional: `onRecords(records, frame)`, `onProgress(frame)`,
   * `onGap(frame)`, `onLive()`, `onSubscribed(frame)`, `onError(frame)`,
   * `onFault(serverFault)`.
   */
  subscribe(wish) {
    const subscription = new Subscription(this, wish);
    subscription.id = ++this.#id;
    this.#subscriptions.set(subscription.id, subscription);
    if (this.#state === "open") this.#request(subscription);
    return subscription;
  }

  unsubscribe(subscription) {
    if (!this.#subscriptions.delete(subscription.id)) return;
    this.#bySub.delete(subscription.sub);
    this.#refused.delete(subscription);
    if (subscription.sub !== null) this.#leave(subscription.sub);
  }

  /** Ends the connection and all subscriptions. */
  close() {
    this.#tell("closed", { why: "the application closed it" });
    this.#subscriptions.clear();
    this.#drop()?.close(1000);
  }

  async #connect() {
    const { urls, token, WebSocket } = this.#options;
    const url = urls[this.#turn++ % urls.length];
    this.#tell("connecting", { url, attempt: this.#attempt });
    let shown;
    try {
      shown = typeof token === "function" ? await token() : token;
    } catch (error) {
      if (this.#state === "connecting") this.#wait(BACKOFF_MS, `no token: ${error.message}`);
      return;
    }
    if (this.#state !== "connecting") return; // closed meanwhile
    const socket = new WebSocket(url, ["brucke.v1.json"]);
    this.#socket = socket;
    this.#listen(OPENING_MS);
    // A socket that was given up may still speak; nobody listens to it.
    const current = (handle) => (event) => socket === this.#socket && handle(event);
    socket.onopen = current(() => this.#show(shown));
    socket.onmessage = current(({ data }) => this.#handle(JSON.parse(data), url));
    socket.onclose = current(({ code, reason }) => this.#ended(code, reason));
  }

  #handle(frame, url) {
    this.#listen();
    const subscription = this.#bySub.get(frame.sub);
    switch (frame.type) {
      case "welcome": {
        this.#silenceMs = frame.heartbeat_ms + 5_000;
        const { connection, tenant, expires_at } = frame;
        this.#tell("open", { url, connection, tenant, expires_at });
        for (const subscription of this.#subscriptions.values()) this.#request(subscription);
        return;
      }
      case "expiring":
        return void this.#renew(this.#socket);
      case "renewed":
        return this.#options.onState?.({ state: "renewed", expires_at: frame.expires_at });
      case "closing":
        return void (this.#told = frame.retry_after_ms);
      case "subscribed":
        return this.#begin(frame);
      case "unsubscribed":
        return this.#left(frame.id);
      case "error":
        return this.#refuse(frame);
      case "records":
      case "progress":
      case "gap":
      case "live":
        return subscription && this.#follow(subscription, frame);
    }
    // `pong`, and what a later server may say: nothing to do.
  }

  #request(subscription) {
    const { id, wish, place } = subscription;
    this.#send({ type: "subscribe", id, ...wish, from: place ?? wish.from });
  }

  #begin(frame) {
    const subscription = this.#subscriptions.get(frame.id);
    // Given up before the server had answered.
    if (!subscription) return this.#leave(frame.sub);
    this.#attempt = subscription.attempt = 0;
    subscription.sub = frame.sub;
    this.#bySub.set(frame.sub, subscription);
    this.#follow(subscription, frame);
  }

  /** Moves the positions, and only then calls the application. */
  #follow({ positions, handlers }, frame) {
    let records;
    try {
      if (frame.type === "records") records = positions.handleRecords(frame);
      else if (frame.type === "progress") positions.handleProgress(frame);
      else if (frame.type === "gap") positions.handleGap(frame);
      else if (frame.type === "subscribed") positions.handleSubscribed(frame);
    } catch (fault) {
      // Come back and ask again from the positions, which the frame has not moved.
      handlers.onFault?.(fault);
      return this.#giveUp(fault.message);
    }
    if (frame.type === "records") handlers.onRecords?.(records, frame);
    else handlers[`on${frame.type[0].toUpperCase()}${frame.type.slice(1)}`]?.(frame);
  }

  #refuse(frame) {
    const subscription = this.#bySub.get(frame.sub) ?? this.#subscriptions.get(frame.id);
    if (!subscription) return this.#options.onError?.(frame);
    this.#bySub.delete(frame.sub);
    subscription.sub = null;
    if (frame.code === "already_subscribed" && this.#leaving.size > 0) {
      this.#refused.add(subscription); // the one before it is still on its way out
    } else if (frame.retry) {
      const socket = this.#socket;
      const wanted = () => socket === this.#socket && this.#subscriptions.has(subscription.id);
      const waitMs = frame.retry_after_ms ?? jitter(BACKOFF_MS, subscription.attempt++);
      setTimeout(() => wanted() && this.#request(subscription), waitMs);
    } else {
      this.#subscriptions.delete(subscription.id);
      subscription.handlers.onError?.(frame);
    }
  }

  #leave(sub) {
    if (this.#state !== "open") return;
    this.#leaving.add(++this.#id);
    this.#send({ type: "unsubscribe", id: this.#id, sub });
  }

  #left(id) {
    this.#leaving.delete(id);
    for (const subscription of this.#refused) this.#request(subscription);
    this.#refused.clear();
  }

  async #renew(socket) {
    const { token } = this.#options;
    if (typeof token !== "function") return; // it ends, and so will the connection
    const fresh = await token().catch(() => null);
    if (socket === this.#socket) this.#show(fresh);
  }

  #show(token) {
    if (token !== null) this.#send({ type: "authenticate", token });
  }

  #send(frame) {
    this.#socket?.send(JSON.stringify(frame));
  }

  /** Expects a sign of life. Scripts don't see the server's pings, so after a silence they ask. */
  #listen(ms = this.#silenceMs) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      if (this.#state !== "open") return this.#giveUp("no answer");
      this.#send({ type: "ping" });
      this.#silence = setTimeout(() => this.#giveUp("silent"), PONG_MS);
    }, ms);
  }

  #giveUp(why) {
    // Not waited for: the closing handshake of a dead connection takes minutes.
    this.#drop()?.close();
    this.#wait(BACKOFF_MS, why);
  }

  /** Goes on after a Close frame, or after none (1006), as the table of close codes says. */
  #ended(code, reason) {
    this.#drop();
    const why = reason || (code === 1006 ? "the connection broke" : `closed with ${code}`);
    const sameToken = NEW_TOKEN.has(code) && typeof this.#options.token !== "function";
    if (NEVER.has(code) || sameToken) return this.#tell("closed", { code, why });
    this.#wait(SOON.has(code) || NEW_TOKEN.has(code) ? SOON_MS : BACKOFF_MS, why);
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    clearTimeout(this.#silence);
    clearTimeout(this.#timer);
    for (const set of [this.#bySub, this.#leaving, this.#refused]) set.clear();
    for (const subscription of this.#subscriptions.values()) subscription.sub = null;
    return socket;
  }

  #wait(ceilingMs, why) {
    const waitMs = this.#told ?? jitter(ceilingMs, this.#attempt);
    this.#told = undefined;
    this.#attempt += 1;
    this.#tell("waiting", { why, waitMs, attempt: this.#attempt });
    this.#timer = setTimeout(() => this.#connect(), waitMs);
  }

  #tell(state, details) {
    this.#state = state;
    this.#options.onState?.({ state, ...details });
  }
}

const NEVER = new Set([1000, 1002, 1003, 1007, 1009, 4006]); // the client is at fault
const SOON = new Set([1012, 4004]);
const NEW_TOKEN = new Set([4002, 4003]);
const SOON_MS = 250;
const BACKOFF_MS = 2_000;
const WAIT_MS_MAX = 30_000;
const PONG_MS = 10_000;
const OPENING_MS = 15_000;
