// A stand-in for the core: `new Core({ images: ['web'] }).ask(plugin, 'boot', request('new'))`, in plain `node --test`.
import { connect, listen } from './core.js';
import { exported } from './hooks.js';
import { bytesOf } from './text.js';


/** A host in a state, as the core would tell it. `fields` may give any of its fields; metadata as an object. */
export function host(state, fields = {}) {
  return {
    id: 7,
    revision: 3,
    hostname: null,
    serial: 'S7',
    uuid: '4c4c4544-0000-1000-8000-000000000007',
    macs: ['52:54:00:00:00:07'],
    states: [state],
    attempts: 0,
    ...fields,
    metadata: JSON.stringify(fields.metadata ?? {}),
    more: JSON.stringify(fields.more ?? {}),
  };
}

/** A boot of a host, for the hooks `boot` and `discovery`. */
export function request(state, fields = {}, facts = {}) {
  return { host: host(state, fields), facts: Object.entries(facts) };
}

/** An event, for the hook `events`. */
export function event(kind, detail = {}, about = host('new')) {
  return { id: `${kind}-1`, hostSeq: 1, atMs: 0, kind, host: about, detail: JSON.stringify(detail) };
}

/**
 * The core in a test. Options: `images`, `templates`, `config`, `hosts` (made with `host`), `http` (a function from a request
 * to `{ status, headers, body }`), `secrets` (names), `nowMs`, `id`, `attempt`, `dryRun`.
 */
export class Core {
  constructor(options = {}) {
    this.options = options;
    this.hosts = new Map((options.hosts ?? []).map((each) => [each.id, each]));
    this.kv = new Map();
    this.versions = 0;
    /** What was logged (`{ level, message, fields }`), noted, sent and applied. */
    this.logged = [];
    this.notes = [];
    this.requests = [];
    this.applied = [];
  }

  /** Asks a hook of a plugin (`import * as plugin from './plugin.js'`) and returns its answer in the contract's form. */
  ask(plugin, hook, asked) {
    connect(this.#interfaces());
    const [answer] = Object.values(exported(plugin, [hook])[hook]);
    return answer(asked);
  }

  /** Runs any function as inside of a hook. */
  run(hook) {
    connect(this.#interfaces());
    return listen(hook);
  }

  #interfaces() {
    const options = this.options;
    const names = (list) => list ?? [];
    return {
      call: {
        id: () => options.id ?? 'test',
        attempt: () => options.attempt ?? 1,
        nowMs: () => options.nowMs ?? 0,
        budgetMs: () => 200,
        dryRun: () => options.dryRun ?? false,
        config: () => JSON.stringify(options.config ?? {}),
        note: (text) => void this.notes.push(text),
      },
      log: { write: (level, message, fields) => void this.logged.push({ level, message, fields: Object.fromEntries(fields) }) },
      catalog: {
        hasImage: (name) => names(options.images).includes(name),
        hasTemplate: (name) => names(options.templates).includes(name),
        images: () => names(options.images),
      },
      hosts: this.#hosts(),
      kv: this.#kv(),
      http: {
        send: (sent) => {
          this.requests.push(sent);
          const answer = options.http?.(sent);
          if (!answer) refuse('not-sent', `nothing answers ${sent.method} ${sent.url} in this test`);
          return { status: answer.status ?? 200, headers: answer.headers ?? [], body: bytesOf(answer.body ?? '') };
        },
      },
      // Not the real thing: a test sees which secret was used over which data.
      signing: {
        hmacSha256: (secret, data) => (names(options.secrets).includes(secret) ? bytesOf(`${secret}:${data.length}`) : refuse('not-found')),
      },
    };
  }

  #hosts() {
    const all = () => [...this.hosts.values()].sort((one, other) => one.id - other.id);
    const from = (list, after, limit) => {
      const rest = list.filter((each) => after === null || each.id > after);
      return { hosts: rest.slice(0, limit), next: rest.length > limit ? rest[limit - 1].id : null };
    };
    return {
      get: (id) => this.hosts.get(id) ?? refuse('not-found'),
      page: (after, limit) => from(all(), after, limit),
      find: (key, value, after, limit) => from(all().filter((each) => fits(each, key, value)), after, limit),
      apply: (id, revision, patch) => {
        const known = this.hosts.get(id) ?? refuse('not-found');
        if (known.revision !== revision) refuse('conflict', known.revision);
        this.applied.push({ id, patch });
        const changed = { ...known, revision: revision + 1, states: patch.states ?? known.states };
        if (patch.hostname.tag !== 'keep') changed.hostname = patch.hostname.val ?? null;
        const metadata = JSON.parse(known.metadata);
        for (const [path, text] of patch.set) put(metadata, path.split('.'), JSON.parse(text));
        for (const path of patch.unset) put(metadata, path.split('.'), undefined);
        changed.metadata = JSON.stringify(metadata);
        this.hosts.set(id, changed);
        return changed;
      },
    };
  }

  #kv() {
    const expected = (key, expect) => {
      const version = this.kv.get(key)?.version;
      const fits = { whatever: true, absent: version === undefined, version: version === expect.val }[expect.tag];
      if (!fits) refuse('conflict', version ?? 0);
    };
    return {
      get: (key) => this.kv.get(key) ?? null,
      put: (key, value, expect) => {
        expected(key, expect);
        this.versions += 1;
        this.kv.set(key, { value, version: this.versions });
        return this.versions;
      },
      delete: (key, expect) => {
        expected(key, expect);
        this.kv.delete(key);
      },
      list: (prefix, after, limit) =>
        [...this.kv.keys()].filter((key) => key.startsWith(prefix) && (after === null || key > after)).sort().slice(0, limit),
    };
  }
}

function refuse(tag, val) {
  throw Object.assign(new Error(tag), { payload: val === undefined ? { tag } : { tag, val } });
}

function fits(each, key, value) {
  if (key === 'mac') return each.macs.includes(value);
  if (['serial', 'uuid', 'hostname'].includes(key)) return each[key] === value;
  const found = key.split('.').reduce((at, name) => at?.[name], JSON.parse(each.metadata));
  return found !== undefined && String(found) === value;
}

function put(into, [name, ...rest], value) {
  if (rest.length > 0) put((into[name] ??= {}), rest, value);
  else if (value === undefined) delete into[name];
  else into[name] = value;
}


