// What the parser of the AsyncAPI initiative has to say of a document. Exit code 0: it is valid, without errors and warnings.

import { readFile } from 'node:fs/promises';
import { Parser } from '@asyncapi/parser';

const WARNING = 1;

const { document, diagnostics } = await new Parser().parse(await readFile(process.argv[2], 'utf8'));
for (const { severity, code, path, message } of diagnostics) console.log(severity, code, path.join('/'), message);
console.log(`${document?.channels().all().length} channels, ${document?.operations().all().length} operations`);
process.exitCode = document && diagnostics.every(({ severity }) => severity > WARNING) ? 0 : 1;
