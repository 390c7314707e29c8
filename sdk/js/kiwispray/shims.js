// What programs expect of the world, from the contract: a component has no console, clock or randomness of its own, and
// touching the engine's would trap.
import { call, log } from './core.js';
import { shown } from './values.js';

const RealDate = Date;

/** Puts the shims in place. Called by the generated entry before the plugin is evaluated. */
export function install(world = globalThis) {
  world.console = console_();
  world.Math.random = random;
  world.Date = date();
  world.performance = { now: () => call.nowMs(), timeOrigin: 0 };
}

function console_() {
  const line = (write) => (...values) => write(values.map((value) => (typeof value === 'string' ? value : spoken(value))).join(' '));
  return {
    debug: line(log.debug),
    trace: line(log.debug),
    log: line(log.info),
    info: line(log.info),
    warn: line(log.warn),
    error: line(log.error),
  };
}

function spoken(value) {
  return value instanceof Error ? String(value) : shown(value);
}

/** The time of the call, which stands still in it, so that a replay sees the same. */
function date() {
  const now = () => call.nowMs();
  const shim = new Proxy(RealDate, {
    construct: (target, values, made) => Reflect.construct(target, values.length === 0 ? [now()] : values, made === shim ? target : made),
    apply: () => new RealDate(now()).toString(),
    get: (target, name) => (name === 'now' ? now : Reflect.get(target, name)),
  });
  RealDate.prototype.constructor = shim;
  return shim;
}

let seeded;
let state = 0;

/** Randomness that follows from the call's id and attempt, so that a replay sees the same. Not for secrets. */
function random() {
  const seed = `${call.id()}:${call.attempt()}`;
  if (seed !== seeded) {
    seeded = seed;
    // FNV-1a.
    state = 0x811c9dc5;
    for (const character of seed) state = Math.imul(state ^ character.codePointAt(0), 0x01000193);
  }
  return ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 2 ** 53;
}

/** A counter through the finish of MurmurHash3. */
function next() {
  state = (state + 0x9e3779b9) | 0;
  let mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
