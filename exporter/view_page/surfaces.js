// What the surface shows: the lit material with any of its maps switched off, or one map alone, and a wireframe.
import { Color, MeshBasicMaterial } from './vendor/three.min.js';

// Texture of a material and the channels of it that a map is.
const MAPS = {
  base: (material) => ({ texture: material.map, channels: 'rgb' }),
  normal: (material) => ({ texture: material.normalMap, channels: 'rgb' }),
  roughness: (material) => ({ texture: material.roughnessMap, channels: 'ggg' }),
  specular: (material) =>
    material.specularColorMap
      ? { texture: material.specularColorMap, channels: 'rgb' }
      : { texture: material.specularIntensityMap ?? null, channels: 'aaa' },
};
export const MAP_LABELS = { base: 'Base colour', normal: 'Normal', roughness: 'Roughness', specular: 'Specular' };
const GREY = new Color(0.5, 0.5, 0.5);

export class Surfaces {
  constructor(meshes) {
    this.meshes = meshes;
    this.own = new Map(meshes.map((mesh) => [mesh, mesh.material]));
    this.saved = new Map([...new Set(this.own.values())].map((material) => [material, { ...pick(material), textures: texturesOf(material) }]));
    this.wires = [];
  }

  has(map) {
    return [...this.saved.values()].some(({ textures }) => textures[map].texture);
  }

  // 'lit', or the name of a map.
  show(what) {
    for (const [mesh, material] of this.own) {
      mesh.material = what === 'lit' ? material : this.mapAlone(material, what);
      // Glass over the eye has no maps: it would only darken what lies behind.
      mesh.layers.set(what !== 'lit' && material.transparent && !this.saved.get(material).textures.base.texture ? 1 : 0);
    }
  }

  // Leave a map out of the lit material.
  enable(map, on) {
    for (const [material, saved] of this.saved) {
      const { texture } = saved.textures[map];
      if (map === 'base') {
        const cutOut = material.alphaTest > 0 || material.transparent; // its shape lies in the map's alpha
        if (!cutOut) material.map = on ? texture : null;
        material.color.copy(on || cutOut ? saved.color : GREY);
      } else if (map === 'normal') {
        material.normalMap = on ? texture : null;
      } else if (map === 'roughness') {
        material.roughnessMap = on ? texture : null;
        material.roughness = on || !texture ? saved.roughness : 0.5;
      } else {
        material.specularIntensity = on ? saved.specularIntensity : 0;
      }
      material.needsUpdate = true;
    }
  }

  wireframe(on) {
    for (const [mesh, material] of this.own) {
      Object.assign(material, { polygonOffset: on, polygonOffsetFactor: 1, polygonOffsetUnits: 1 });
      if (!on) continue;
      const wire = mesh.clone(false);
      wire.material = new MeshBasicMaterial({ color: '#9fe8ff', wireframe: true, transparent: true, opacity: 0.35 });
      wire.morphTargetInfluences = mesh.morphTargetInfluences;
      mesh.parent.add(wire);
      this.wires.push({ mesh, wire });
    }
    if (!on) {
      for (const { wire } of this.wires) {
        wire.removeFromParent();
        wire.material.dispose();
      }
      this.wires = [];
    }
    this.follow();
  }

  // Wires are seen where their meshes are.
  follow() {
    for (const { mesh, wire } of this.wires) wire.visible = mesh.visible;
  }

  mapAlone(material, map) {
    const { texture, channels } = this.saved.get(material).textures[map];
    const cutOut = this.saved.get(material).textures.base.texture;
    const { side, alphaTest } = material;
    const shown = new MeshBasicMaterial({ map: texture, side, toneMapped: false, color: texture ? 'white' : '#777' });
    if (map === 'base') return Object.assign(shown, { alphaTest, color: material.color });
    const linear = texture && texture.colorSpace === '';
    shown.onBeforeCompile = (shader) => {
      shader.uniforms.cutOut = { value: cutOut };
      // Numbers are shown as they stand in the file, so what is linear is decoded here and encoded at the end.
      const value = linear ? `mix(pow((texel + 0.055) / 1.055, vec3(2.4)), texel / 12.92, vec3(lessThanEqual(texel, vec3(0.04045))))` : 'texel';
      const cut = alphaTest > 0 && cutOut ? `if (texture2D(cutOut, vMapUv).a < ${alphaTest.toFixed(3)}) discard;` : '';
      shader.fragmentShader = shader.fragmentShader
        .replace('#include <map_pars_fragment>', '#include <map_pars_fragment>\nuniform sampler2D cutOut;')
        .replace(
          '#include <map_fragment>',
          `#ifdef USE_MAP\n vec3 texel = texture2D(map, vMapUv).${channels};\n diffuseColor.rgb *= ${value};\n ${cut}\n#endif`,
        );
    };
    shown.customProgramCacheKey = () => `${map} ${channels} ${linear} ${alphaTest}`;
    return shown;
  }
}

function texturesOf(material) {
  return Object.fromEntries(Object.entries(MAPS).map(([name, read]) => [name, read(material)]));
}

function pick({ color, roughness, specularIntensity = 1 }) {
  return { color: color.clone(), roughness, specularIntensity };
}
