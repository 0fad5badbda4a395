// Runs the Khronos glTF validator on one file and prints its report as JSON.
//   node tests/exporter/khronos_validate.mjs FILE.glb
// Exit code 0: no error and no warning; 1: something was found; 2: usage.
import { readFile } from 'node:fs/promises';
import validator from 'gltf-validator';

const [path] = process.argv.slice(2);
if (!path) {
  console.error('usage: node khronos_validate.mjs FILE.glb');
  process.exit(2);
}
const report = await validator.validateBytes(new Uint8Array(await readFile(path)), { maxIssues: 100 });
console.log(JSON.stringify(report, null, 2));
process.exitCode = report.issues.numErrors + report.issues.numWarnings === 0 ? 0 : 1;
