// Answers in few words: `return image('web', { append: ['quiet'], because: 'rack 7' })`.
import { aText, aWhole, anObject, loweredPatch, pairs, queue, shown, texts } from './values.js';

/** What a hook answers. Only the functions below make one, so a wrong answer is seen. */
class Answer {
  constructor(hook, lowered) {
    this.hook = hook;
    this.lowered = lowered;
    Object.freeze(this);
  }
}

/** The contract's form of an answer to a hook, or a sentence about what came instead. */
export function lowered(answer, hook, wanted) {
  if (answer instanceof Answer && answer.hook === hook) return answer.lowered;
  const got = answer instanceof Answer ? `an answer to \`${answer.hook}\`` : shown(answer);
  throw new TypeError(`the hook \`${hook}\` answered ${got}; it wants ${wanted}`);
}

function boot(verdict, options) {
  return new Answer('boot', {
    verdict,
    patch: options.patch === undefined || options.patch === null ? null : loweredPatch(options.patch, 'the decision'),
    reason: aText(options.because ?? '', 'because'),
  });
}

const COMMON = ['because', 'patch'];

/** Boots an image: `{ append, vars, because, patch }`. One that writes a disk is booted only if it is the current state. */
export function image(name, options = {}) {
  const { append = [], vars = {} } = anObject(options, 'image', ['append', 'vars', ...COMMON]);
  const val = { image: aText(name, 'the image'), append: texts(append, 'append'), vars: pairs(vars, 'vars') };
  return boot({ tag: 'boot', val: { tag: 'image', val } }, options);
}

/** Boots a script template: `{ vars, because, patch }`. */
export function template(name, options = {}) {
  const { vars = {} } = anObject(options, 'template', ['vars', ...COMMON]);
  const val = { template: aText(name, 'the template'), vars: pairs(vars, 'vars') };
  return boot({ tag: 'boot', val: { tag: 'template', val } }, options);
}

/** Boots the local disk: `{ because, patch }`. */
export function localDisk(options = {}) {
  return boot({ tag: 'boot', val: { tag: 'local-disk' } }, anObject(options, 'localDisk', COMMON));
}

/** Lets the host wait, with a text on its console, and ask again: `{ againAfterMs, because, patch }`. */
export function hold(text, options = {}) {
  const { againAfterMs = null } = anObject(options, 'hold', ['againAfterMs', ...COMMON]);
  const again = againAfterMs === null ? null : aWhole(againAfterMs, 'againAfterMs');
  return boot({ tag: 'hold', val: { text: aText(text, 'the text'), againAfterMs: again } }, options);
}

/** No opinion, but something to say: `{ because, patch }`. */
export function pass(options = {}) {
  return boot({ tag: 'pass' }, anObject(options, 'pass', COMMON));
}

/** No opinion: the next plugin is asked. */
export const PASS = pass();

/**
 * Takes a new machine in, changed by a patch: `{ because }`. An order's name in it counts as carried out: the same wish is
 * refused later.
 */
export function admit(patch = {}, options = {}) {
  const { because = '' } = anObject(options, 'admit', ['because']);
  const verdict = { tag: 'admit', val: loweredPatch(patch, 'admit') };
  return new Answer('discovery', { verdict, reason: aText(because, 'because') });
}

/**
 * A patch that gives a queue, for `admit` and `hosts.apply`: `assign('wipe,web', 'CHG-4711')`. `why` names the wish: the core
 * carries out a wish once per host, so one that stays where the plugin reads it does not install in a circle.
 */
export function assign(states, why) {
  return { states: queue(states, 'the states'), order: aText(why, 'why') };
}

/** Does not take a new machine in; it waits, with this text on its console. */
export function refuse(text, options = {}) {
  const { because = '' } = anObject(options, 'refuse', ['because']);
  const verdict = { tag: 'refuse', val: aText(text, 'the text') };
  return new Answer('discovery', { verdict, reason: aText(because, 'because') });
}

function transition(verdict, because) {
  return new Answer('transition', { verdict, reason: aText(because, 'because') });
}

/** Lets a state change happen. */
export const ALLOW = transition({ tag: 'allow' }, '');

/** Lets another one happen instead. */
export function redirect(states, because = '') {
  return transition({ tag: 'redirect', val: queue(states, 'the states') }, because);
}

/** Refuses it; a finish is committed all the same, and the host is then held. */
export function deny(why) {
  return transition({ tag: 'deny', val: aText(why, 'why') }, '');
}

/** There is more to do: the job runs again after so long, not at its period. */
export function again(afterMs) {
  return new Answer('schedule', { tag: 'after-ms', val: aWhole(afterMs, 'afterMs') });
}

/** The job runs again when its period is over. */
export const AT_PERIOD = new Answer('schedule', { tag: 'at-period' });
