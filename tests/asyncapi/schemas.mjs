// Whether the JSON Schemas mean in JavaScript what they mean in Python: each is compiled, strictly, and told which of the given
// messages ({"name": …, "data": …} on each line of stdin) are none. Exit code 0: all are.

import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import Ajv from 'ajv/dist/2020.js';
import formats from 'ajv-formats';

const document = JSON.parse(await readFile(process.argv[2], 'utf8'));
const ajv = formats(new Ajv({ strict: true, allErrors: true, allowUnionTypes: true }));
ajv.addSchema(document);
const validators = new Map(Object.keys(document.$defs).map((name) => [name, ajv.getSchema(`${document.$id}#/$defs/${name}`)]));
let [count, wrong] = [0, 0];
for await (const line of createInterface({ input: process.stdin })) {
  const { name, data } = JSON.parse(line);
  const valid = validators.get(name);
  count += 1;
  if (valid(data)) continue;
  wrong += 1;
  console.log(name, ajv.errorsText(valid.errors));
}
console.log(`${validators.size} schemas, ${count} messages, ${wrong} wrong`);
process.exitCode = wrong ? 1 : 0;
