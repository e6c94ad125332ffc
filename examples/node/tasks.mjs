// What the worker can do: a task is a function of its params and of `ctx`, what it may know and tell of its attempt.

import { setTimeout as sleep } from 'node:timers/promises';

export function weigh({ items }) {
  return { grams: items.reduce((sum, { grams }) => sum + grams, 0) };
}

// Stands for a service that is busy now and then: whoever throws with `retryable` decides whether there is another attempt.
export async function quote({ grams }, ctx) {
  if (ctx.attempt === 1) throw Object.assign(new Error('the carrier is busy'), { code: 'CARRIER_BUSY', retryable: true });
  if (grams > 30_000) throw Object.assign(new Error(`${grams} g are too heavy`), { code: 'TOO_HEAVY', retryable: false });
  return { euros: 4 + Math.ceil(grams / 1000) };
}

// Takes its time, tells how far it is, and ends when it is told to: `ctx.signal` is aborted by a cancel and by the timeout.
export async function pack({ items, seconds = 0.2 }, ctx) {
  const packed = [];
  for (const { name } of items) {
    ctx.progress(packed.length / items.length, `packing the ${name}`);
    await sleep((seconds * 1000) / items.length, undefined, { signal: ctx.signal });
    packed.push(name);
  }
  return packed.join(' and ');
}
