// Does in every hook what the cases ask of it.
import {
  ALLOW, Invalid, PASS, Retry, admit, again, assign, call, catalog, config, deny, hosts, http, image, kv, log, note,
  redirect, refuse, signing,
} from './kiwispray/index.js';

export const about = { name: 'probe', version: '1', summary: 'for tests', events: ['*'], jobs: { sync: 60 } };

export function checkConfig({ bad }) {
  return bad ? [{ at: '/bad', message: 'is bad' }] : [];
}

export function boot({ host, facts }) {
  console.log('asked about', host.id, facts);
  switch (host.metadata.do) {
    case 'throw':
      return host.nothing.there;
    case 'nonsense':
      return 'web';
    case 'invalid':
      throw new Invalid('no such rack');
    case 'retry':
      throw new Retry('later', 1234);
    case 'clock':
      note(`now ${Date.now()} ${new Date().toISOString()}`);
      note(`random ${Math.random()} ${Math.random()}`);
      return PASS;
    case 'image':
      return image('web', {
        append: ['quiet'],
        vars: { has: catalog.hasImage('web'), lacks: catalog.hasImage('db'), site: config().site ?? null },
        because: `for ${host.metadata.who}`,
        patch: { hostname: 'n1', set: { 'a.b': [1, null] }, unset: ['c'] },
      });
    case 'plain':
      return image('web', { append: ['quiet'] });
    default:
      return PASS;
  }
}

export function discovered({ facts }) {
  if (facts.asset === undefined) return refuse('no asset tag');
  return admit(assign('wipe,web', `asset ${facts.asset}`), { because: 'its tag is known' });
}

export function variables({ document, vars }) {
  return { ...vars, greeting: `grüße, ${document}` };
}

export function before({ to, cause, actor }) {
  if (cause === 'finish') return ALLOW;
  return to.includes('wipe') ? redirect(to.filter((state) => state !== 'wipe'), `by ${actor}`) : deny('nothing to do');
}

export function event({ kind, detail }) {
  if (kind === 'bad') throw new Error(`no ${detail.what}`);
  log.info('handled', { kind });
}

export function run(job) {
  const [found] = hosts.find('metadata.site', 'fra1');
  const changed = hosts.apply(found, { set: { 'seen.at': call.nowMs() } });
  const answer = http.post('https://cmdb.example.org/api/sync', { json: { host: changed.id, name: 'ü€𝄞' } });
  kv.putJson(`${job}/last`, { status: answer.status, name: answer.json().name, before: kv.getJson(`${job}/last`) });
  note(`signed ${[...signing.hmacSha256('hook', 'data')].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`);
  try {
    kv.put(`${job}/last`, '0', { absent: true });
  } catch (refused) {
    note(`refused ${refused.kind}`);
  }
  return again(2000);
}
