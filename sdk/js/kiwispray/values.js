// What the core tells, with its documents parsed, and what plugins give back, with every field looked at: a wrong type would
// end the call in a bare trap.

/** A machine. `metadata` and `more` are parsed. */
export class Host {
  constructor(raw) {
    Object.assign(this, raw);
    this.hostname = raw.hostname ?? null;
    this.metadata = JSON.parse(raw.metadata);
    this.more = JSON.parse(raw.more);
  }
  /** The current state: the first of the queue. */
  get state() {
    return this.states[0] ?? 'finished';
  }
  /** Whether the host has nothing left to do. */
  get isFinished() {
    return this.state === 'finished';
  }
}

/** `{ host, facts }`; facts by name: platform, buildarch, manufacturer, product, asset, … */
export function bootRequest(raw) {
  return { host: new Host(raw.host), facts: Object.fromEntries(raw.facts) };
}

/** `{ host, document, vars }` */
export function renderRequest(raw) {
  return { host: new Host(raw.host), document: raw.document, vars: JSON.parse(raw.vars) };
}

/** `{ host, to, cause, actor }` */
export function transitionRequest(raw) {
  return { ...raw, host: new Host(raw.host) };
}

/** `{ id, hostSeq, atMs, kind, host, detail }`; `host` may be null. */
export function event(raw) {
  return { ...raw, host: raw.host ? new Host(raw.host) : null, detail: JSON.parse(raw.detail) };
}

/** A value in a message, short. */
export function shown(value) {
  if (value instanceof Promise) return 'a promise (hooks are not async)';
  let text;
  try {
    text = typeof value === 'function' ? 'a function' : JSON.stringify(value);
  } catch {
    text = undefined;
  }
  text ??= String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

export function aText(value, what) {
  if (typeof value !== 'string') throw new TypeError(`${what} must be a text, not ${shown(value)}`);
  // Half a character would be no UTF-8, which ends the call in a bare trap.
  return value.toWellFormed();
}

export function aWhole(value, what) {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) {
    throw new TypeError(`${what} must be a whole number, 0 or more, not ${shown(value)}`);
  }
  return value;
}

/** A list of texts. */
export function texts(value, what) {
  if (!Array.isArray(value)) throw new TypeError(`${what} must be a list of texts, not ${shown(value)}`);
  return value.map((each) => aText(each, `each of ${what}`));
}

/** A queue of states, as people write it (`'wipe,web'`) or as a list. */
export function queue(value, what) {
  if (typeof value !== 'string') return texts(value, what);
  return value.split(',').map((state) => state.trim()).filter((state) => state !== '');
}

/** A JSON document. */
export function aDocument(value, what) {
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`${what} must be a JSON value, not ${shown(value)}`);
  return text;
}

/** An object with only the given keys. */
export function anObject(value, what, keys) {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new TypeError(`${what} must be an object, not ${shown(value)}`);
  }
  const unknown = keys && Object.keys(value).find((key) => !keys.includes(key));
  if (unknown !== undefined) throw new TypeError(`${what} has no \`${unknown}\`; there is ${keys.join(', ')}`);
  return value;
}

/** Names and JSON values. */
export function pairs(value, what) {
  return Object.entries(anObject(value ?? {}, what)).map(([name, each]) => [aText(name, what), aDocument(each, `${what}.${name}`)]);
}

const PATCH = ['hostname', 'states', 'order', 'set', 'unset'];

/** A patch: `{ hostname, states, order, set: { 'a.b': 1 }, unset: ['c'] }`, all optional; `hostname: null` clears it. */
export function loweredPatch(patch, what) {
  const { hostname, states, order, set, unset } = anObject(patch, `the patch of ${what}`, PATCH);
  let edit = { tag: 'keep' };
  if (hostname === null) edit = { tag: 'clear' };
  else if (hostname !== undefined) edit = { tag: 'set', val: aText(hostname, 'hostname') };
  return {
    hostname: edit,
    states: states === undefined || states === null ? null : queue(states, 'states'),
    order: order === undefined || order === null ? null : aText(order, 'order'),
    set: pairs(set, 'set'),
    unset: texts(unset ?? [], 'unset'),
  };
}
