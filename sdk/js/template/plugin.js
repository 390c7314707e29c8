// Lets the machines of racks that are being worked on wait, whatever they were to boot.
//
// A machine's rack is the key `rack` of its metadata: `kiwispray host set 3 --meta rack=r7`.
import { PASS, config, hold, note } from './kiwispray/index.js';

export const about = {
  name: '@name@',
  version: '0.1.0',
  summary: 'Lets machines of racks under maintenance wait',
  configSchema: {
    type: 'object',
    properties: { racks: { type: 'array', items: { type: 'string' } } },
    additionalProperties: false,
  },
};

/** Hook `boot`: what a host boots now. */
export function boot({ host }) {
  const { rack } = host.metadata;
  if (rack === undefined) {
    note('its rack is not known');
    return PASS;
  }
  if ((config().racks ?? []).includes(rack)) {
    return hold(`Rack ${rack} is being worked on.`, { because: 'its rack is under maintenance' });
  }
  return PASS;
}
