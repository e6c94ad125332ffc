// A client of esexec that knows nothing of it but docs/reference/protocol.md: starts an execution, watches it to its end.
//
//     node client.mjs [EXECUTION_ID [GRAMS]]     a parcel with a lamp of that weight
//     node client.mjs --watch EXECUTION_ID       only watch
//
// NATS_URL and ESEXEC_NAMESPACE say where. Exit code: 0 if the execution completed, else 1.

import { pathToFileURL } from 'node:url';
import { connect } from '@nats-io/transport-node';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';

const ENDS = new Set(['execution_completed', 'execution_failed', 'execution_cancelled', 'execution_rolled_back']);
const LOOK_AGAIN_MS = 2000;

export class Client {
  static async connect(servers = 'nats://127.0.0.1:4222', namespace = 'default') {
    const client = new Client();
    client.nc = await connect({ servers, name: 'esexec-node-client' });
    client.js = jetstream(client.nc);
    client.jsm = await jetstreamManager(client.nc);
    client.prefix = `esexec.${namespace}`;
    client.log = `ESEXEC_${namespace}_LOG`;
    return client;
  }

  close() {
    return this.nc.close();
  }

  // Give a command, and wait for its answer. Answers are not stored, so the subscription comes first; where none comes, the same
  // command is sent again: with the same id it is the same command, and is never carried out twice.
  async command(execution, verb, body, patience = 30_000) {
    const command = { id: crypto.randomUUID(), ...body };
    const answers = this.nc.subscribe(`${this.prefix}.reply.${execution}.${command.id}`, { max: 1 });
    const answer = (async () => { for await (const message of answers) return message.json(); })();
    for (const end = Date.now() + patience; Date.now() < end; ) {
      await this.js.publish(`${this.prefix}.cmd.${execution}.${verb}`, JSON.stringify(command));
      const heard = await within(answer, LOOK_AGAIN_MS);
      if (heard?.status === 'refused') throw new Error(`[${heard.error.code}] ${heard.error.message}`);
      if (heard) return heard;
    }
    answers.unsubscribe();
    throw new Error('the command is stored, but nobody has answered: is an executor running?');
  }

  start(execution, body) {
    return this.command(execution, 'start', body);
  }

  // Every commit of an execution, in order and without gaps, from the first to the one with which it ends. The server tells of
  // each once it is stored, but at most once: what was missed is read from the log, where its subject says its number.
  async *commits(execution) {
    const told = new Map();
    let wake = () => {};
    const subscription = this.nc.subscribe(`${this.prefix}.commit.${execution}.*`, {
      callback: (_, message) => {
        told.set(Number(message.subject.split('.').at(-1)), message);
        wake();
      },
    });
    try {
      for (let n = 1; ; ) {
        const news = new Promise((resolve) => { wake = resolve; });
        const message = told.get(n) ?? (await this.read(execution, n));
        if (message === null) {
          await within(news, LOOK_AGAIN_MS);
          continue;
        }
        told.delete(n++);
        const commit = message.json();
        yield commit;
        // Behind an end the history goes on if somebody commanded a retry.
        if (commit.events.some((event) => ENDS.has(event.type)) && !told.has(n) && !(await this.read(execution, n))) return;
      }
    } finally {
      subscription.unsubscribe();
    }
  }

  // The n-th commit, or null if there is none (yet).
  read(execution, n) {
    return this.jsm.direct.getMessage(this.log, { last_by_subj: `${this.prefix}.log.${execution}.${n}` });
  }

  // What handlers tell meanwhile: `live.<execution>.progress` and `.log`. Nothing depends on it.
  live(execution, kind, callback) {
    return this.nc.subscribe(`${this.prefix}.live.${execution}.${kind}`, { callback: (_, message) => callback(message.json()) });
  }
}

// What a promise gives, or undefined after so long.
async function within(promise, milliseconds) {
  let timer;
  const late = new Promise((resolve) => { timer = setTimeout(resolve, milliseconds); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const PARCEL = {
  name: 'parcel',
  config: { queue: 'parcels' },
  steps: [
    { id: 'weigh', task: 'weigh', params: { items: '${input.items}' } },
    { id: 'quote', task: 'quote', params: { grams: '${steps.weigh.output.grams}' }, initial_retry_delay_ms: 200 },
    { id: 'pack', task: 'pack', params: { items: '${input.items}' }, depends_on: ['quote'] },
  ],
};

async function main(...given) {
  const watchOnly = given[0] === '--watch' && given.shift();
  const [execution = `parcel-${Date.now()}`, grams = 900] = given;
  let client;
  try {
    client = await Client.connect(process.env.NATS_URL, process.env.ESEXEC_NAMESPACE);
    client.live(execution, 'progress', ({ step, fraction, text }) => console.log(`  ${step}: ${Math.round(fraction * 100)} % ${text}`));
    if (!watchOnly) {
      const input = { items: [{ name: 'lamp', grams: Number(grams) }, { name: 'cable', grams: 150 }] };
      const answer = await client.start(execution, { plan: PARCEL, input, actor: 'node' });
      console.log(`${execution} ${answer.status}`);
    }
    let last;
    for await (const commit of client.commits(execution)) {
      for (const event of commit.events) {
        console.log(...described(event));
        last = event.type;
      }
    }
    process.exitCode = last === 'execution_completed' ? 0 : 1;
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  } finally {
    await client?.close();
  }
}

function described({ type, step, attempt = 1, output, error }) {
  const what = [type, step, attempt > 1 && `(attempt ${attempt})`, error && `[${error.code}] ${error.message}`];
  return [...what.filter(Boolean), ...(output === undefined ? [] : [JSON.stringify(output)])];
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main(...process.argv.slice(2));
