// UTF-8, which the engine of a component has no words for.

/** Bytes of a text, or bytes as they are. */
export function bytesOf(value) {
  if (value instanceof Uint8Array) return value;
  if (typeof value !== 'string') throw new TypeError(`expected a text or bytes, not ${typeof value}`);
  // Percent-encoding is UTF-8; a lone surrogate has none and becomes the replacement character.
  const encoded = encodeURIComponent(value.toWellFormed());
  const bytes = [];
  for (let at = 0; at < encoded.length; at += 1) {
    if (encoded[at] === '%') {
      bytes.push(Number.parseInt(encoded.slice(at + 1, at + 3), 16));
      at += 2;
    } else {
      bytes.push(encoded.charCodeAt(at));
    }
  }
  return Uint8Array.from(bytes);
}

/** The text of UTF-8 bytes; what is none becomes the replacement character. */
export function textOf(bytes) {
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const [point, length] = character(bytes, at);
    text += String.fromCodePoint(point);
    at += length;
  }
  return text;
}

const REPLACEMENT = 0xfffd;
// By length: the first byte's mask and mark, and the smallest code point that needs the length.
const FORMS = [[0x80, 0x00, 0], [0xe0, 0xc0, 0x80], [0xf0, 0xe0, 0x800], [0xf8, 0xf0, 0x10000]];

/** The code point at a place and how many bytes it took. */
function character(bytes, at) {
  const first = bytes[at];
  const more = FORMS.findIndex(([mask, mark]) => (first & mask) === mark);
  if (more <= 0) return [more === 0 ? first : REPLACEMENT, 1];
  let point = first & ~FORMS[more][0] & 0xff;
  for (let next = 1; next <= more; next += 1) {
    if ((bytes[at + next] & 0xc0) !== 0x80) return [REPLACEMENT, next];
    point = (point << 6) | (bytes[at + next] & 0x3f);
  }
  const isCharacter = point >= FORMS[more][2] && point <= 0x10ffff && (point < 0xd800 || point > 0xdfff);
  return [isCharacter ? point : REPLACEMENT, more + 1];
}
