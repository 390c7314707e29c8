// Between the contract and a plugin's functions: documents are parsed, answers checked, exceptions become errors with a place.
import { AT_PERIOD, lowered as loweredAnswer } from './answers.js';
import { listen, log } from './core.js';
import { lowered as loweredError, place } from './errors.js';
import { aDocument, aText, aWhole, anObject, bootRequest, event, renderRequest, shown, texts, transitionRequest } from './values.js';

/** Each hook of the contract: what the plugin exports for it, and the function of the contract that is made of that. */
export const HOOKS = {
  boot: {
    written: ['boot'],
    exported: (plugin) => ({
      decide: guarded((raw) => loweredAnswer(plugin.boot(bootRequest(raw)), 'boot', 'image(…), template(…), localDisk(), hold(…) or PASS')),
    }),
  },
  discovery: {
    written: ['discovered'],
    exported: (plugin) => ({
      discovered: guarded((raw) => loweredAnswer(plugin.discovered(bootRequest(raw)), 'discovery', 'admit(…) or refuse(…)')),
    }),
  },
  render: {
    written: ['variables'],
    exported: (plugin) => ({
      variables: guarded((raw) => {
        const answer = plugin.variables(renderRequest(raw));
        return aDocument(anObject(answer, 'the answer of the hook `render`'), 'the variables');
      }),
    }),
  },
  transition: {
    written: ['before'],
    exported: (plugin) => ({
      before: guarded((raw) => loweredAnswer(plugin.before(transitionRequest(raw)), 'transition', 'ALLOW, redirect(…) or deny(…)')),
    }),
  },
  events: {
    written: ['event', 'events'],
    exported: (plugin) => ({
      handle: guarded((raw) => (plugin.events ? batch(plugin, raw.map(event)) : oneByOne(plugin, raw))),
    }),
  },
  schedule: {
    written: ['run'],
    exported: (plugin) => ({
      run: guarded((job) => loweredAnswer(plugin.run(job) ?? AT_PERIOD, 'schedule', 'nothing or again(…)')),
    }),
  },
};

/** The exports of a component: `about` and the hooks that plugin.toml names. Fails when one of them is not written. */
export function exported(plugin, hooks) {
  const interfaces = { about: about(plugin) };
  for (const name of hooks) {
    const hook = HOOKS[name];
    if (!hook.written.some((each) => typeof plugin[each] === 'function')) {
      throw new Error(`plugin.toml names the hook \`${name}\`, but plugin.js exports no function \`${hook.written[0]}\``);
    }
    interfaces[name] = hook.exported(plugin);
  }
  return interfaces;
}

const ABOUT = ['name', 'version', 'summary', 'configSchema', 'events', 'jobs', 'more'];

function about(plugin) {
  const said = anObject(plugin.about, 'plugin.js exports `about`, which', ABOUT);
  const jobs = Object.entries(anObject(said.jobs ?? {}, 'about.jobs'));
  const description = {
    name: aText(said.name, 'about.name'),
    version: aText(said.version, 'about.version'),
    summary: aText(said.summary, 'about.summary'),
    configSchema: aDocument(anObject(said.configSchema ?? {}, 'about.configSchema'), 'about.configSchema'),
    events: texts(said.events ?? [], 'about.events'),
    jobs: jobs.map(([name, seconds]) => ({ name, periodS: aWhole(seconds, `about.jobs.${name}, in seconds,`) })),
    more: aDocument(anObject(said.more ?? {}, 'about.more'), 'about.more'),
  };
  return { describe: () => description, checkConfig: (text) => problems(plugin, text) };
}

/** Everything wrong with a configuration. The contract has no error here, so an exception is a problem too. */
function problems(plugin, text) {
  if (plugin.checkConfig === undefined) return [];
  try {
    const found = listen(() => plugin.checkConfig(text.trim() === '' ? {} : JSON.parse(text))) ?? [];
    return found.map((each) => {
      const problem = typeof each === 'string' ? { message: each } : anObject(each, 'a problem', ['at', 'message']);
      return { at: aText(problem.at ?? '', 'at'), message: aText(problem.message, 'message') };
    });
  } catch (thrown) {
    return [{ at: '', message: loweredError(thrown).val.toString() }];
  }
}

/** Runs a hook; what it throws becomes an error of the contract, and a fault is logged with the way to it. */
function guarded(hook) {
  return (raw) =>
    listen(() => {
      try {
        return hook(raw);
      } catch (thrown) {
        const error = loweredError(thrown);
        if (error.tag === 'failed') tell(error.val, thrown);
        throw error;
      }
    });
}

function tell(text, thrown) {
  const stack = thrown instanceof Error ? String(thrown.stack).trim() : '';
  log.error(text, { exception: place(thrown) ?? 'no place', stack });
}

function batch(plugin, events) {
  const done = plugin.events(events) ?? events.length;
  if (aWhole(done, 'the answer of `events`, how many are done,') > events.length) {
    throw new TypeError(`\`events\` says that ${shown(done)} of ${events.length} are done`);
  }
  return done;
}

/** In order, until one fails: the rest is delivered again. Only the first one's failure is an answer. */
function oneByOne(plugin, raw) {
  let done = 0;
  for (const each of raw) {
    try {
      plugin.event(event(each));
    } catch (thrown) {
      if (done === 0) throw thrown;
      log.warn(`event ${each.id} is left for the next delivery: ${thrown}`);
      break;
    }
    done += 1;
  }
  return done;
}
