// What a plugin may ask of the core. In a component these are its imports, which the generated entry connects; in tests
// `testing.js` stands in for them.
import { CoreError } from './errors.js';
import { bytesOf, textOf } from './text.js';
import { Host, loweredPatch } from './values.js';

let imports = {};
let listening = false;

/** Gives the interfaces of the contract, by name. Called by the generated entry, and by `testing.js`. */
export function connect(interfaces) {
  imports = interfaces;
}

/** Runs a hook: only now the core can be asked, at build time nobody listens. */
export function listen(hook) {
  const outer = listening;
  listening = true;
  try {
    return hook();
  } finally {
    listening = outer;
  }
}

function ask(name, method, ...values) {
  if (!listening) {
    throw new Error(`${name}.${method} outside of a hook: the top of a module runs when the plugin is built, where the core cannot be asked`);
  }
  const found = imports[name];
  if (found === undefined) throw new Error(`plugin.toml does not name \`${name}\` among its imports, so it was built without`);
  try {
    return found[method](...values.map((value) => (typeof value === 'string' ? value.toWellFormed() : value)));
  } catch (thrown) {
    // An error of the contract travels as the payload of an exception; anything else is a mistake in the arguments.
    if (typeof thrown?.payload?.tag !== 'string') throw thrown;
    throw new CoreError(`${name}.${method}`, thrown.payload.tag, thrown.payload.val);
  }
}

/** What can be asked about the call itself. */
export const call = {
  /** The same for every retry of the same call: an idempotency key. */
  id: () => ask('call', 'id'),
  /** 1 for the first try. */
  attempt: () => ask('call', 'attempt'),
  /** Milliseconds since 1970, fixed for the call. */
  nowMs: () => Number(ask('call', 'nowMs')),
  /** Milliseconds that this call has left. */
  budgetMs: () => ask('call', 'budgetMs'),
  /** Whether nothing of this call will be committed. */
  dryRun: () => ask('call', 'dryRun'),
};

/** The configuration of this binding, parsed. */
export function config() {
  const text = ask('call', 'config');
  return text.trim() === '' ? {} : JSON.parse(text);
}

/** A line for the trace of this decision: `kiwispray host explain` shows it. */
export function note(text) {
  ask('call', 'note', String(text));
}

function write(level, message, fields = {}) {
  ask('log', 'write', level, String(message), Object.entries(fields).map(([name, value]) => [name.toWellFormed(), String(value).toWellFormed()]));
}

/** Log lines with fields: `log.info('synced', { hosts: 3 })`. `console.log` and its sisters end here too. */
export const log = {
  debug: (message, fields) => write('debug', message, fields),
  info: (message, fields) => write('info', message, fields),
  warn: (message, fields) => write('warn', message, fields),
  error: (message, fields) => write('error', message, fields),
};

/** What the server can boot. Import `catalog`. */
export const catalog = {
  hasImage: (name) => ask('catalog', 'hasImage', name),
  hasTemplate: (name) => ask('catalog', 'hasTemplate', name),
  images: () => ask('catalog', 'images'),
};

/** The machines. Import `hosts`; not in decision hooks for what writes. */
export const hosts = {
  get: (id) => new Host(ask('hosts', 'get', id)),
  /** All hosts by `serial`, `uuid`, `mac`, `hostname` or a dotted metadata path. */
  find(key, value) {
    const found = [];
    let after = null;
    do {
      const page = ask('hosts', 'find', key, value, after, 100);
      found.push(...page.hosts.map((host) => new Host(host)));
      after = page.next ?? null;
    } while (after !== null);
    return found;
  },
  /** `{ hosts, next }`: give `next` as `after` until it is null. */
  page(after = null, limit = 100) {
    const page = ask('hosts', 'page', after, limit);
    return { hosts: page.hosts.map((host) => new Host(host)), next: page.next ?? null };
  },
  /** Changes the host that was looked at: another revision by now is the error `conflict`. */
  apply: (host, patch) => new Host(ask('hosts', 'apply', host.id, host.revision, loweredPatch(patch, 'hosts.apply'))),
};

const WHATEVER = { tag: 'whatever' };
const ABSENT = { tag: 'absent' };

function expectation(options) {
  if (options.version !== undefined) return { tag: 'version', val: options.version };
  return options.absent ? ABSENT : WHATEVER;
}

/** A store of the plugin's own. Import `kv`. `put` and `delete` take `{ version }` or `{ absent: true }` to write only then. */
export const kv = {
  /** `{ value: Uint8Array, version }`, or null. */
  get(key) {
    const entry = ask('kv', 'get', key);
    return entry ? { value: Uint8Array.from(entry.value), version: entry.version } : null;
  },
  /** The value, parsed, or null. */
  getJson(key) {
    const entry = kv.get(key);
    return entry && JSON.parse(textOf(entry.value));
  },
  /** Returns the new version. */
  put: (key, value, options = {}) => ask('kv', 'put', key, bytesOf(value), expectation(options)),
  putJson: (key, value, options) => kv.put(key, JSON.stringify(value), options),
  delete: (key, options = {}) => ask('kv', 'delete', key, expectation(options)),
  /** Keys in order. */
  list: (prefix, after = null, limit = 100) => ask('kv', 'list', prefix, after, limit),
};

/** An answer over http. */
class Response {
  constructor(raw) {
    this.status = raw.status;
    this.headers = raw.headers;
    this.body = Uint8Array.from(raw.body);
  }
  get ok() {
    return this.status >= 200 && this.status < 300;
  }
  /** The first header of that name, or null. */
  header(name) {
    return this.headers.find(([key]) => key.toLowerCase() === name.toLowerCase())?.[1] ?? null;
  }
  text() {
    return textOf(this.body);
  }
  json() {
    return JSON.parse(this.text());
  }
}

function send(method, url, options = {}) {
  const headers = Object.entries(options.headers ?? {}).map(([name, value]) => [name, String(value)]);
  let body = options.body === undefined ? null : bytesOf(options.body);
  if (options.json !== undefined) {
    body = bytesOf(JSON.stringify(options.json));
    headers.push(['content-type', 'application/json']);
  }
  const request = { method, url: String(url), headers, body, timeoutMs: options.timeoutMs ?? null };
  return new Response(ask('http', 'send', request));
}

/** Requests to what the grant names. Import `http`. Options: `{ headers, json, body, timeoutMs }`. Not in decision hooks. */
export const http = {
  request: send,
  get: (url, options) => send('GET', url, options),
  post: (url, options) => send('POST', url, options),
  put: (url, options) => send('PUT', url, options),
  patch: (url, options) => send('PATCH', url, options),
  delete: (url, options) => send('DELETE', url, options),
};

/** Secrets that the operator named in the grant, used without being seen. Import `signing`. */
export const signing = {
  hmacSha256: (secret, data) => Uint8Array.from(ask('signing', 'hmacSha256', secret, bytesOf(data))),
};
