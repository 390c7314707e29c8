// Imported before the plugin, so that nothing of it sees the engine's own clock, randomness and missing console.
import { install } from './shims.js';

install();
