// Loads GLB files and sorts their meshes by level of detail: other files, MSFT_lod, or nodes named ..._LOD1.
import { Box3, GLTFLoader, KTX2Loader, MeshoptDecoder, Sphere } from './vendor/three.min.js';

// models [{url, name}] -> [{name, bytes, extras, roots, meshes}], the finest first.
export async function loadLevels(renderer, models) {
  const textures = new KTX2Loader().setTranscoderPath('/vendor/').detectSupport(renderer);
  const loader = new GLTFLoader().setKTX2Loader(textures).setMeshoptDecoder(MeshoptDecoder);
  const levels = [];
  for (const { url, name } of models) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${name}: the server answers ${response.status}`);
    const data = await response.arrayBuffer();
    const gltf = await loader.parseAsync(data, '/');
    const { json } = gltf.parser;
    for (const node of json.nodes ?? []) {
      for (const [index, id] of (node.extensions?.MSFT_lod?.ids ?? []).entries()) {
        const object = await gltf.parser.getDependency('node', id);
        object.userData.level = index + 1;
        gltf.scene.add(object);
      }
    }
    const found = new Map();
    gltf.scene.traverse((object) => {
      if (!object.isMesh) return;
      object.frustumCulled = false; // blendshapes leave the bounds of the neutral face
      const level = levelOf(object);
      found.set(level, [...(found.get(level) ?? []), object]);
    });
    for (const [level, meshes] of [...found].sort(([a], [b]) => a - b)) {
      const label = found.size > 1 ? `${name}, level ${level}` : name;
      levels.push({ name: label, bytes: data.byteLength, extras: json.asset.extras?.fitdiff ?? {}, root: gltf.scene, meshes });
    }
  }
  if (!levels.length) throw new Error('There is no mesh in this file.');
  return levels;
}

export function boundsOf(level) {
  level.root.updateMatrixWorld(true);
  const box = new Box3();
  for (const mesh of level.meshes) box.expandByObject(mesh, true);
  return box.getBoundingSphere(new Sphere());
}

export function countsOf({ meshes }) {
  const vertices = meshes.reduce((sum, { geometry }) => sum + geometry.attributes.position.count, 0);
  const corners = meshes.reduce((sum, { geometry }) => sum + (geometry.index ?? geometry.attributes.position).count, 0);
  return { vertices, triangles: corners / 3 };
}

export function shapeNames({ meshes }) {
  return [...new Set(meshes.flatMap((mesh) => Object.keys(mesh.morphTargetDictionary ?? {})))];
}

function levelOf(object) {
  for (let node = object; node; node = node.parent) {
    if (node.userData.level) return node.userData.level;
    const match = /_LOD(\d+)(_\d+)?$/i.exec(node.name);
    if (match) return Number(match[1]);
  }
  return 0;
}
