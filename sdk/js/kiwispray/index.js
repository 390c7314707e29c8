// What a plugin imports: answers, errors, and what it may ask of the core.
export {
  ALLOW, PASS, admit, again, assign, deny, hold, image, localDisk, pass, redirect, refuse, template,
} from './answers.js';
export { CoreError, Fatal, Invalid, Retry } from './errors.js';
export { call, catalog, config, hosts, http, kv, log, note, signing } from './core.js';
