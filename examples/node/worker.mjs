// A worker of esexec that knows nothing of it but docs/reference/protocol.md.
//
//     node worker.mjs
//
// NATS_URL and ESEXEC_NAMESPACE say where. SIGINT and SIGTERM end it: what runs may come to its end.

import { setTimeout as pause } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { connect } from '@nats-io/transport-node';
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager } from '@nats-io/jetstream';

const LEASE_MS = 5000;
const STARTED_AFTER_MS = 50; // what runs longer is told to have started
const TIMEOUT_GRACE_MS = 1000; // so long a handler may take to end once it was told to
const LOST_TOO_OFTEN = 10;
const REMEMBERED_MS = 30_000; // a word to stop may overtake its dispatch, and a dispatch may come again behind its report
const LANES_EVERY_MS = 2000;
const AGAIN_MS = 500;
const OUTPUT_CHARS = 250_000;
const CONSUMER_EXISTS = 10148;

export class Worker {
  constructor(nc, jsm, tasks, { namespace = 'default', queue = 'parcels', slots = 4 } = {}) {
    Object.assign(this, { nc, jsm, tasks, queue, slots });
    this.js = jetstream(nc);
    this.prefix = `esexec.${namespace}`;
    this.stream = `ESEXEC_${namespace}_TASKS`;
    this.name = `node-${crypto.randomUUID().slice(0, 8)}`;
    this.inHand = new Map(); // attempts, by `<execution>/<step>/<run>-<attempt>`
    this.told = new Set(); // attempts that were told to stop and are not here (yet)
    this.reported = new Set(); // attempts whose outcome is stored: their acknowledgement may have been lost
    this.lanes = new Map(); // the loops that take from a lane, by its consumer's name
    this.stopped = new AbortController();
  }

  async start() {
    this.nc.subscribe(`${this.prefix}.live.*.cancel`, { callback: readable((signal) => this.onCancel(signal)) });
    this.nc.subscribe(`${this.prefix}.live.*.held`, { callback: readable((asked, message) => this.onWhoHas(asked, message)) });
    this.nc.subscribe(`${this.prefix}.live._workers.ask`, { callback: () => this.onWhoIsThere() });
    await this.announce();
    await this.ensureLane(5);
    await this.findLanes();
    this.looking = setInterval(() => this.findLanes().catch(() => {}), LANES_EVERY_MS);
  }

  // Take nothing new, and let what runs come to its end.
  async stop() {
    clearInterval(this.looking);
    this.stopped.abort();
    await Promise.all([...this.lanes.values()].flat());
    await this.nc.close();
  }

  // Which tasks there are, so that a start finds their settings.
  async announce() {
    const tasks = Object.fromEntries(Object.keys(this.tasks).map((name) => [name, {}]));
    const command = { id: crypto.randomUUID(), tasks, worker: this.name, actor: this.name };
    await this.js.publish(`${this.prefix}.cmd._settings.announce`, JSON.stringify(command));
  }

  // Somebody wants to know which workers there are, and what they can do.
  onWhoIsThere() {
    if (this.stopped.signal.aborted) return;
    const tasks = Object.fromEntries(Object.keys(this.tasks).map((name) => [name, ''])); // of none a schema was announced
    const presence = { worker: this.name, tasks, queues: { [this.queue]: this.slots } };
    this.nc.publish(`${this.prefix}.live._workers.here`, JSON.stringify(presence));
  }

  // Lanes: a durable consumer for each priority of the queue that is in use --------------------------------------------------

  async ensureLane(priority) {
    const lane = {
      durable_name: `${this.queue}_p${priority}`,
      filter_subject: `${this.prefix}.task.${this.queue}.${priority}.>`,
      deliver_policy: DeliverPolicy.All,
      ack_policy: AckPolicy.Explicit,
      ack_wait: LEASE_MS * 1e6,
      max_deliver: -1,
      max_ack_pending: -1,
      max_waiting: 10_000,
    };
    await this.jsm.consumers.add(this.stream, lane).catch((error) => {
      if (error.code !== CONSUMER_EXISTS) throw error; // with another lease: it stays as it is
    });
  }

  async findLanes() {
    for await (const { name } of this.jsm.consumers.list(this.stream)) {
      const priority = name.startsWith(`${this.queue}_p`) ? name.slice(this.queue.length + 2) : '';
      if (/^\d+$/.test(priority) && !this.lanes.has(name)) {
        this.lanes.set(name, Array.from({ length: this.slots }, () => this.serve(name)));
      }
    }
  }

  // One slot: one attempt after the other, and never more in hand than can be run.
  async serve(lane) {
    const consumer = await this.js.consumers.get(this.stream, lane);
    const lease = (await consumer.info(true)).config.ack_wait / 1e6;
    while (!this.stopped.signal.aborted) {
      const message = await consumer.next({ expires: 1000 }).catch(() => pause(AGAIN_MS)); // no server: it comes back
      if (message && this.stopped.signal.aborted) message.nak(); // a pull that was open still brought it: for others
      else if (message) await this.take(message, lease).catch((error) => console.error(`${message.subject}: ${error}`));
    }
  }

  // An attempt -----------------------------------------------------------------------------------------------------------------

  async take(message, lease) {
    const [queue, , execution, step, attempt] = message.subject.split('.').slice(3);
    const key = `${execution}/${step}/${attempt}`;
    const running = this.inHand.get(key);
    if (running) {
      running.message = message; // its lease was lost, and came back to us: it is the same attempt still
      return;
    }
    if (this.reported.has(key)) return message.ack();
    const report = `${this.prefix}.in.${execution}.report.${queue}.${step}.${attempt}`;
    const held = { message, stop: new AbortController() };
    this.inHand.set(key, held);
    const beating = setInterval(() => held.message.working(), lease / 3); // keeps the lease
    try {
      if (this.told.delete(key)) held.stop.abort('stopped');
      const losses = message.info.deliveryCount - 1;
      if (losses > 0) await this.store(report, { type: 'lost', losses });
      if (losses < LOST_TOO_OFTEN) {
        await this.store(report, await this.run(message, held, report));
        remember(this.reported, key);
      }
      held.message.ack(); // not before the report is stored
    } finally {
      clearInterval(beating);
      this.inHand.delete(key);
    }
  }

  // Run the handler; gives the report of how it ended.
  async run(message, { stop }, report) {
    const dispatch = parsed(message);
    if (!dispatch) return failed({ code: 'bad_dispatch', message: 'the dispatch cannot be read', retryable: false });
    const { task, params = {}, timeout_ms = 30_000 } = dispatch;
    if (stop.signal.aborted) return { type: 'stopped' };
    const handler = Object.hasOwn(this.tasks, task) ? this.tasks[task] : undefined;
    if (!handler) return { ...failed({ code: 'unknown_task', message: `there is no task ${task} here` }), type: 'rejected' };
    const started_at = new Date().toISOString();
    const ended = (outcome) => ({ started_at, ended_at: new Date().toISOString(), ...outcome });
    const tell = () => this.store(report, { type: 'started', started_at });
    const last = message.info.deliveryCount >= LOST_TOO_OFTEN; // then first of all: it may be what kills workers
    if (last) await tell();
    const telling = !last && setTimeout(() => tell().catch(() => {}), STARTED_AFTER_MS);
    const late = timeout_ms && setTimeout(() => stop.abort('timed_out'), timeout_ms);
    const work = (async () => handler(params, this.context(dispatch, stop.signal)))();
    try {
      const output = await Promise.race([work, abandoned(stop.signal)]);
      if ((JSON.stringify(output) ?? '').length > OUTPUT_CHARS) throw new TooLarge('the output is too large');
      return ended({ type: 'completed', output });
    } catch (error) {
      const why = stop.signal.reason; // it was told to end: by a cancel (`stopped`), or by its timeout
      if (why) return ended({ type: why, ended: error === ABANDONED ? 'abandoned' : 'cancelled' });
      return ended(failed(error));
    } finally {
      clearTimeout(telling);
      clearTimeout(late);
    }
  }

  context({ execution_id, step, attempt = 1, run = 1 }, signal) {
    const progress = (fraction, text = '') => {
      const told = { execution_id, step, attempt, run, time: new Date().toISOString(), worker: this.name, fraction, text };
      this.nc.publish(`${this.prefix}.live.${execution_id}.progress`, JSON.stringify(told));
    };
    return { execution_id, step, attempt, run, signal, progress, idempotencyKey: `${execution_id}/${step}/${run}` };
  }

  // Publish a report until JetStream has acknowledged it. Twice is no harm: of an attempt one outcome is accepted.
  async store(subject, report) {
    const data = JSON.stringify({ worker: this.name, ...report });
    for (;;) {
      try {
        return await this.js.publish(subject, data);
      } catch (error) {
        if (this.nc.isClosed()) throw error;
        await pause(AGAIN_MS);
      }
    }
  }

  onCancel({ execution_id, step, attempt, run = 1 }) {
    const key = `${execution_id}/${step}/${run}-${attempt}`;
    if (this.inHand.has(key)) return this.inHand.get(key).stop.abort('stopped');
    remember(this.told, key);
  }

  onWhoHas({ execution_id, step, attempt, run }, message) {
    if (this.inHand.has(`${execution_id}/${step}/${run}-${attempt}`)) message.respond('+');
  }
}

function remember(keys, key) {
  keys.add(key);
  setTimeout(() => keys.delete(key), REMEMBERED_MS).unref();
}

class TooLarge extends Error {
  code = 'output_too_large';
  retryable = false;
}

// Anybody may publish anything: what is no JSON is no message of the protocol.
function parsed(message) {
  try {
    return message.json();
  } catch {
    return null;
  }
}

function readable(callback) {
  return (_, message) => {
    const body = parsed(message);
    if (body) callback(body, message);
  };
}

const ABANDONED = Symbol('abandoned');

// Rejects where a handler that was told to end has not done so in time: it is left to itself.
function abandoned(signal) {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => setTimeout(reject, TIMEOUT_GRACE_MS, ABANDONED).unref());
  });
}

function failed({ code, message, retryable, stack, name }) {
  return { type: 'failed', error: { type: 'execution_error', code: code ?? name ?? 'error', message, retryable, stack } };
}

async function main() {
  const servers = process.env.NATS_URL ?? 'nats://127.0.0.1:4222';
  const nc = await connect({ servers, name: 'esexec-node-worker', maxReconnectAttempts: -1 });
  const tasks = { ...(await import('./tasks.mjs')) };
  const worker = new Worker(nc, await jetstreamManager(nc), tasks, { namespace: process.env.ESEXEC_NAMESPACE });
  await worker.start();
  console.log(`worker ${worker.name} ready`);
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => worker.stop());
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await main().catch((error) => {
    console.error(`${error.message}: is a NATS server there, and an executor?`);
    process.exit(1);
  });
}
