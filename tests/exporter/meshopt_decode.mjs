// Decodes every EXT_meshopt_compression buffer view of a GLB file with three.js's copy of the reference decoder.
//   node tests/exporter/meshopt_decode.mjs FILE.glb OUT.bin
// OUT.bin is the fallback buffer, with every view where the document says.
import { readFile, writeFile } from 'node:fs/promises';
import { MeshoptDecoder } from 'three/examples/jsm/libs/meshopt_decoder.module.js';

const [source, target] = process.argv.slice(2);
if (!target) {
  console.error('usage: node meshopt_decode.mjs FILE.glb OUT.bin');
  process.exit(2);
}
const file = await readFile(source);
const length = file.readUInt32LE(12);
const document = JSON.parse(file.subarray(20, 20 + length).toString());
const binary = file.subarray(28 + length);
await MeshoptDecoder.ready;
const whole = new Uint8Array(document.buffers[1].byteLength);
for (const view of document.bufferViews) {
  const packed = view.extensions?.EXT_meshopt_compression;
  if (!packed) continue;
  const start = packed.byteOffset ?? 0;
  const stream = new Uint8Array(binary.subarray(start, start + packed.byteLength));
  const place = whole.subarray(view.byteOffset, view.byteOffset + view.byteLength);
  MeshoptDecoder.decodeGltfBuffer(place, packed.count, packed.byteStride, stream, packed.mode, packed.filter ?? 'NONE');
}
await writeFile(target, whole);
