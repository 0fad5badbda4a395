// Opens a GLB file with three.js in headless Chromium and writes front.png, left.png, right.png and below.png.
//   node tests/exporter/three_view.mjs FILE.glb OUT_DIR [--size 768] [--unlit] [--morph NAME=WEIGHT ...]
// On standard output: what three.js made of the file, as JSON. Chromium is $CHROMIUM or the one on the path.
// Exit code 3: no Chromium.
import { createReadStream, existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:http';
import { delimiter, extname, join, normalize, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const ROOT = resolve(fileURLToPath(new URL('../..', import.meta.url)));
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.glb': 'model/gltf-binary' };
const VIEWS = ['front', 'left', 'right', 'below'];

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    size: { type: 'string', default: '768' },
    unlit: { type: 'boolean', default: false },
    morph: { type: 'string', multiple: true, default: [] },
  },
});
const [model, out] = positionals;
if (!model || !out) {
  console.error('usage: node three_view.mjs FILE.glb OUT_DIR [--size 768] [--unlit] [--morph NAME=WEIGHT ...]');
  process.exit(2);
}
const executablePath = [
  process.env.CHROMIUM,
  ...process.env.PATH.split(delimiter).flatMap((folder) => ['chromium', 'chromium-browser', 'google-chrome'].map((name) => join(folder, name))),
].find((path) => path && existsSync(path));
if (!executablePath) {
  console.error('Chromium: not on the path; install it or name it in $CHROMIUM');
  process.exit(3);
}

const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
  const file = path === '/model.glb' ? model : join(ROOT, path);
  const allowed = path === '/model.glb' || /^\/(examples|tests\/node_modules\/three)\//.test(path);
  if (!allowed || !existsSync(file)) return response.writeHead(404).end();
  response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' });
  createReadStream(file).pipe(response);
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));

const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'],
});
try {
  const size = Number(options.size);
  const page = await browser.newPage({ viewport: { width: size, height: size } });
  const problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && problems.push(message.text()));
  await page.goto(`http://127.0.0.1:${server.address().port}/examples/viewer.html?plain&model=/model.glb`);
  await page.waitForFunction(() => window.fitdiffViewer, null, { timeout: 120_000 });
  await mkdir(out, { recursive: true });
  for (const morph of options.morph) {
    const [name, weight] = morph.split('=');
    await page.evaluate(([name, weight]) => window.fitdiffViewer.setMorph(name, weight), [name, Number(weight)]);
  }
  const description = await page.evaluate(() =>
    window.fitdiffViewer.meshes.map(({ material, geometry, morphTargetDictionary, skeleton }) => ({
      material: material.name,
      vertices: geometry.attributes.position.count,
      targets: Object.keys(morphTargetDictionary ?? {}),
      joints: skeleton?.bones.map((bone) => bone.name),
      colorSpaces: {
        map: material.map?.colorSpace,
        normalMap: material.normalMap?.colorSpace,
        roughnessMap: material.roughnessMap?.colorSpace,
        specularColorMap: material.specularColorMap?.colorSpace,
      },
      normalScale: material.normalScale?.toArray(),
      specularIntensity: material.specularIntensity,
      specularColor: material.specularColor?.toArray(),
      alphaTest: material.alphaTest,
      transparent: material.transparent,
      side: material.side,
    })),
  );
  if (options.unlit) await page.evaluate(() => window.fitdiffViewer.unlit());
  for (const view of VIEWS) {
    await page.evaluate((name) => window.fitdiffViewer.show(name), view);
    await page.screenshot({ path: join(out, `${view}.png`) });
  }
  console.log(JSON.stringify({ browser: browser.version(), problems, meshes: description }, null, 2));
} finally {
  await browser.close();
  server.close();
}
