// `node --test` in sdk/js.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as sdk from '../kiwispray/index.js';
import { install } from '../kiwispray/shims.js';
import { Core, event, host, request } from '../kiwispray/testing.js';
import { bytesOf, textOf } from '../kiwispray/text.js';

const about = { name: 'racks', version: '1', summary: 'for tests' };

/** What a hook throws, in the contract's form. */
function refused(core, plugin, hook, asked) {
  try {
    core.ask({ about, ...plugin }, hook, asked);
  } catch (error) {
    return error;
  }
  return assert.fail('the hook answered');
}

const booting = (boot) => ({ about, boot });

test('an image carries arguments, variables, a patch and a reason', () => {
  const options = { append: ['quiet'], vars: { site: 'fra1' }, because: 'rack 7', patch: { set: { 'a.b': 1 }, hostname: null } };
  const answer = new Core().ask(booting(() => sdk.image('web', options)), 'boot', request('web'));
  assert.deepEqual(answer, {
    verdict: { tag: 'boot', val: { tag: 'image', val: { image: 'web', append: ['quiet'], vars: [['site', '"fra1"']] } } },
    patch: { hostname: { tag: 'clear' }, states: null, order: null, set: [['a.b', '1']], unset: [] },
    reason: 'rack 7',
  });
});

test('requests come with their documents parsed', () => {
  const boot = ({ host: { metadata, state, isFinished }, facts }) => {
    assert.deepEqual([metadata.rack, state, isFinished, facts.platform], ['r7', 'web', false, 'efi']);
    return sdk.PASS;
  };
  const asked = request('web', { metadata: { rack: 'r7' } }, { platform: 'efi' });
  assert.deepEqual(new Core().ask(booting(boot), 'boot', asked).verdict, { tag: 'pass' });
});

test('an exception is failed, with file, line and function', () => {
  const core = new Core();
  const error = refused(core, { boot: function decide() { return undefined.x; } }, 'boot', request('web'));
  assert.equal(error.tag, 'failed');
  assert.match(error.val, /^TypeError: .*\(sdk\.test\.js:\d+:\d+ in .*decide.*\)$/);
  assert.equal(core.logged[0].level, 'error');
});

test('what is thrown on purpose is an answer', () => {
  const thrown = (error) => refused(new Core(), { boot() { throw error; } }, 'boot', request('web'));
  assert.deepEqual(thrown(new sdk.Invalid('odd')), { tag: 'invalid', val: 'odd' });
  assert.deepEqual(thrown(new sdk.Retry('later', 10)), { tag: 'retry', val: { afterMs: 10, reason: 'later' } });
  assert.deepEqual(thrown(new sdk.Fatal('over')), { tag: 'fatal', val: 'over' });
  assert.deepEqual(thrown('text'), { tag: 'failed', val: 'thrown: "text"' });
});

test('nonsense is failed, and says what is wanted', () => {
  const answered = (answer) => refused(new Core(), { boot: () => answer }, 'boot', request('web')).val;
  assert.match(answered(undefined), /the hook `boot` answered undefined; it wants image\(…\)/);
  assert.match(answered({ image: 'web' }), /answered \{"image":"web"\}/);
  assert.match(answered(sdk.ALLOW), /an answer to `transition`/);
  const built = (make) => refused(new Core(), { boot: make }, 'boot', request('web')).val;
  assert.match(built(() => sdk.image(7)), /the image must be a text, not 7/);
  assert.match(built(() => sdk.image('web', { args: [] })), /image has no `args`; there is append, vars, because, patch/);
  assert.match(built(() => sdk.hold('x', { againAfterMs: -1 })), /againAfterMs must be a whole number/);
  assert.match(built(() => sdk.pass({ patch: { state: 'web' } })), /has no `state`/);
});

test('every hook has its answers', () => {
  const core = new Core();
  const plugin = {
    about,
    discovered: () => sdk.admit(sdk.assign('wipe, web', 'CHG-1'), { because: 'new' }),
    variables: ({ vars }) => ({ ...vars, site: 'fra1' }),
    before: ({ to, cause }) => (cause === 'finish' ? sdk.ALLOW : sdk.redirect(to.slice(1), 'shorter')),
    run: (job) => (job === 'sync' ? sdk.again(5000) : undefined),
  };
  const admitted = core.ask(plugin, 'discovery', request('new')).verdict.val;
  assert.deepEqual([admitted.states, admitted.order], [['wipe', 'web'], 'CHG-1']);
  assert.equal(core.ask(plugin, 'render', { host: host('web'), document: 'user-data', vars: '{"a":1}' }), '{"a":1,"site":"fra1"}');
  const change = { host: host('web'), to: ['wipe', 'web'], cause: 'operator', actor: '' };
  assert.deepEqual(core.ask(plugin, 'transition', change).verdict, { tag: 'redirect', val: ['web'] });
  assert.deepEqual(core.ask(plugin, 'schedule', 'sync'), { tag: 'after-ms', val: 5000 });
  assert.deepEqual(core.ask(plugin, 'schedule', 'other'), { tag: 'at-period' });
});

test('events are done from the front until one fails', () => {
  const core = new Core();
  const plugin = { about, event({ kind }) { if (kind === 'bad') throw new Error('no'); } };
  assert.equal(core.ask(plugin, 'events', ['a', 'b', 'bad', 'c'].map((kind) => event(kind))), 2);
  assert.equal(refused(core, plugin, 'events', [event('bad')]).tag, 'failed');
});

test('a hook that is not written stops the build', () => {
  assert.throws(() => new Core().ask({ about }, 'events', []), /names the hook `events`, but plugin.js exports no function `event`/);
  assert.throws(() => new Core().ask({ about: { name: 'x' }, boot() {} }, 'boot', {}), /about.version must be a text/);
});

test('what the core refuses is an error that means retry where that can help', () => {
  const plugin = booting(({ host: { metadata } }) => sdk.hosts.get(metadata.other) && sdk.PASS);
  const missing = refused(new Core(), plugin, 'boot', request('web', { metadata: { other: 9 } }));
  assert.match(missing.val, /CoreError: hosts.get: not-found/);
  const down = refused(new Core(), booting(() => sdk.http.get('https://x/')), 'boot', request('web'));
  assert.equal(down.tag, 'retry');
});

test('hosts, kv and http speak shortly', () => {
  const core = new Core({
    hosts: [1, 2, 3].map((id) => host('web', { id, metadata: { site: id < 3 ? 'fra1' : 'ber1' } })),
    http: ({ url }) => ({ status: url.endsWith('ü') ? 200 : 404, headers: [['X-A', 'b']], body: '{"grüße": "€𝄞"}' }),
  });
  core.run(() => {
    const found = sdk.hosts.find('site', 'fra1');
    assert.deepEqual(found.map(({ id }) => id), [1, 2]);
    assert.equal(sdk.hosts.apply(found[0], { set: { 'owner.name': 'me' } }).metadata.owner.name, 'me');
    assert.throws(() => sdk.hosts.apply(found[0], {}), { kind: 'conflict', detail: 4 });
    assert.equal(sdk.kv.get('a'), null);
    sdk.kv.putJson('a', { n: 1 }, { absent: true });
    assert.deepEqual(sdk.kv.getJson('a'), { n: 1 });
    assert.throws(() => sdk.kv.put('a', 'x', { absent: true }), { kind: 'conflict' });
    const answer = sdk.http.post('https://x/ü', { json: { a: 1 }, headers: { 'X-B': 1 } });
    assert.deepEqual([answer.ok, answer.header('x-a'), answer.json()['grüße']], [true, 'b', '€𝄞']);
  });
  assert.deepEqual(core.requests[0].headers, [['X-B', '1'], ['content-type', 'application/json']]);
});

test('outside of a hook nothing can be asked, and nothing that was not granted', () => {
  assert.throws(() => sdk.config(), /call.config outside of a hook/);
  const plugin = booting(() => sdk.catalog.images());
  assert.deepEqual(new Core({ images: ['web'] }).run(() => sdk.catalog.images()), ['web']);
  assert.equal(typeof plugin.boot, 'function');
});

test('console, clock and randomness come from the call', () => {
  const world = { Math: Object.create(Math), console: undefined };
  install(world);
  const core = new Core({ id: 'a', nowMs: 86_400_000 });
  const drawn = (options) => new Core(options).run(() => [world.Math.random(), world.Math.random()]);
  core.run(() => {
    world.console.log('host', { id: 7 }, new Error('x'));
    assert.equal(world.Date.now(), 86_400_000);
    assert.equal(new world.Date().toISOString(), '1970-01-02T00:00:00.000Z');
    assert.equal(new world.Date(0).getTime(), 0);
    assert.ok(new world.Date() instanceof world.Date);
  });
  assert.deepEqual(core.logged.map(({ level, message }) => [level, message]), [['info', 'host {"id":7} Error: x']]);
  const [one, two] = drawn({ id: 'a' });
  assert.ok(one !== two && one >= 0 && one < 1);
  assert.notDeepEqual(drawn({ id: 'b' }), [one, two]);
});

test('UTF-8 goes there and back, and broken bytes become replacement characters', () => {
  const text = 'a\0ü€𝄞\u{10ffff}';
  assert.deepEqual([...bytesOf(text)], [...new TextEncoder().encode(text)]);
  assert.equal(textOf(bytesOf(text)), text);
  for (const bytes of [[0xff], [0xc3], [0xe2, 0x82, 0x41], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0xf4, 0x90, 0x80, 0x80]]) {
    assert.match(textOf(Uint8Array.from(bytes)), /^\ufffd+A?$/);
  }
});
