// One line per thing said, written before the call returns: what it says has happened.

import { writeSync } from "node:fs";

const pause = new Int32Array(new SharedArrayBuffer(4));

/** Writes a line; a reader that does not read is waited for. */
export function say(did, fields = {}) {
  let rest = Buffer.from(`${JSON.stringify({ did, ...fields })}\n`);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
      Atomics.wait(pause, 0, 0, 1);
    }
  }
}
