// Errors: what a hook throws on purpose, what the core answers, and how both become an error of the contract.

// After how long the core tries again when nothing else was said.
const RETRY_MS = 5000;

/** The input makes no sense to the plugin: an answer, not a fault, not retried. */
export class Invalid extends Error {
  name = 'Invalid';
}

/** Try again later, for example as a service is down: an answer too. */
export class Retry extends Error {
  name = 'Retry';
  constructor(reason, afterMs = RETRY_MS) {
    super(reason);
    this.afterMs = afterMs;
  }
}

/** Out of order until configuration or component change. */
export class Fatal extends Error {
  name = 'Fatal';
}

/** The core did not do what was asked. `kind` is the contract's word: `denied`, `not-found`, `conflict`, `unavailable`, … */
export class CoreError extends Error {
  name = 'CoreError';
  constructor(asked, kind, detail) {
    super(`${asked}: ${kind}${detail === undefined || detail === null ? '' : ` (${detail})`}`);
    this.kind = kind;
    this.detail = detail;
  }
}

/** Kinds of refusals after which the same question may get another answer. */
const PASSING = ['conflict', 'not-sent', 'unavailable', 'unknown'];

/** What was thrown, as an error of the contract. */
export function lowered(thrown) {
  if (thrown instanceof Invalid) return { tag: 'invalid', val: thrown.message };
  if (thrown instanceof Fatal) return { tag: 'fatal', val: thrown.message };
  if (thrown instanceof Retry) return retry(thrown.message, thrown.afterMs);
  if (thrown instanceof CoreError && PASSING.includes(thrown.kind)) return retry(thrown.message, RETRY_MS);
  const where = place(thrown);
  return { tag: 'failed', val: where ? `${described(thrown)} (${where})` : described(thrown) };
}

function retry(reason, afterMs) {
  const whole = Number.isFinite(afterMs) ? Math.min(Math.max(Math.round(afterMs), 0), 0xffffffff) : RETRY_MS;
  return { tag: 'retry', val: { afterMs: whole, reason } };
}

function described(thrown) {
  if (thrown instanceof Error) return `${thrown.name}: ${thrown.message}`;
  try {
    return `thrown: ${JSON.stringify(thrown) ?? String(thrown)}`;
  } catch {
    return 'thrown: something that cannot be shown';
  }
}

// `at boot (/plugin.js:3:22)` in a component, `at boot (file:///home/me/plugin.js:3:22)` in node.
const FRAME = /at (?:(.*) \()?(?:file:\/\/)?(\/[^():]+):(\d+):(\d+)\)?$/;

const SDK = /\/kiwispray\/(core|errors|hooks|answers|values|shims|testing|text)\.js$/;

/** The innermost place in the plugin's own code: `plugin.js:3:22 in boot`; undefined when there is none. */
export function place(thrown) {
  if (!(thrown instanceof Error) || typeof thrown.stack !== 'string') return undefined;
  for (const line of thrown.stack.split('\n')) {
    const [, name, path, row, column] = FRAME.exec(line.trimEnd()) ?? [];
    if (path === undefined || SDK.test(path)) continue;
    const file = path.slice(path.lastIndexOf('/') + 1);
    return `${file}:${row}:${column}${name ? ` in ${name}` : ''}`;
  }
  return undefined;
}
