// Makes the vendored files anew from tests/node_modules (`npm ci --prefix tests`), into this folder or the one named:
//   node exporter/view_page/vendor/build.mjs [OUT_DIR]
// The same versions of three.js and esbuild give the same bytes.
import { copyFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = dirname(fileURLToPath(import.meta.url));
const MODULES = resolve(HERE, '../../../tests/node_modules');
const out = resolve(process.argv[2] ?? HERE);
const { build } = createRequire(join(MODULES, 'package.json'))('esbuild');

await build({
  entryPoints: [join(HERE, 'entry.mjs')],
  outfile: join(out, 'three.min.js'),
  bundle: true,
  format: 'esm',
  minify: true,
  target: 'es2022',
  legalComments: 'inline',
  nodePaths: [MODULES],
  logLevel: 'warning',
});
const basis = join(MODULES, 'three/examples/jsm/libs/basis');
for (const name of ['basis_transcoder.js', 'basis_transcoder.wasm']) await copyFile(join(basis, name), join(out, name));
await copyFile(join(MODULES, 'three/LICENSE'), join(out, 'three.LICENSE'));
