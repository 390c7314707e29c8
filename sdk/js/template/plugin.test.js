import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Core, request } from './kiwispray/testing.js';
import * as plugin from './plugin.js';

function decide(metadata) {
  return new Core({ config: { racks: ['r7'] } }).ask(plugin, 'boot', request('web', { metadata }));
}

test('a machine of a rack under maintenance waits', () => {
  assert.match(decide({ rack: 'r7' }).verdict.val.text, /r7/);
});

test('other machines boot as usual', () => {
  assert.equal(decide({ rack: 'r8' }).verdict.tag, 'pass');
  assert.equal(decide({}).verdict.tag, 'pass');
});
