// Shows the avatar that the server names in avatar.json, and builds the panel. `?plain` leaves the panel out.
import {
  Color, NeutralToneMapping, NoToneMapping, OrbitControls, PerspectiveCamera, Scene, Vector3, WebGLRenderer,
} from './vendor/three.min.js';
import { boundsOf, countsOf, loadLevels, shapeNames } from './avatar.js';
import { Lighting } from './lighting.js';
import { buttons, caption, choice, facts, section, slider, switches } from './panel.js';
import { groupedShapes } from './shapes.js';
import { MAP_LABELS, Surfaces } from './surfaces.js';

// From the middle of the head to the camera; left is the character's left, +X.
const VIEWS = {
  front: [0, 0, 1], left: [1, 0, 0], right: [-1, 0, 0], 'three-quarter': [0.7, 0.1, 0.8], below: [0, -0.8, 0.9],
};
const message = document.querySelector('#message');

try {
  await start();
} catch (error) {
  message.textContent = `This avatar cannot be shown: ${error.message}`;
  throw error;
}

async function start() {
  document.body.classList.toggle('plain', new URLSearchParams(location.search).has('plain'));
  const { models, photo } = await (await fetch('avatar.json')).json();
  if (photo) {
    const frame = document.querySelector('#photo');
    frame.querySelector('img').src = photo;
    frame.hidden = false;
  }
  const stage = document.querySelector('#stage');
  const renderer = new WebGLRenderer({ antialias: true });
  renderer.setPixelRatio(devicePixelRatio);
  stage.append(renderer.domElement);
  const scene = new Scene();
  scene.background = new Color('#5a5d63');
  const camera = new PerspectiveCamera(25, 1, 0.01, 20);
  const controls = new OrbitControls(camera, renderer.domElement);
  const draw = () => renderer.render(scene, camera);

  const levels = await loadLevels(renderer, models);
  for (const { root } of levels) scene.add(root);
  const lighting = new Lighting(renderer, scene);
  const surfaces = new Surfaces(levels.flatMap(({ meshes }) => meshes));
  const bounds = boundsOf(levels[0]);

  const state = { level: 0 };
  const showLevel = (index) => {
    state.level = index;
    levels.forEach(({ meshes }, number) => meshes.forEach((mesh) => (mesh.visible = number === index)));
    surfaces.follow();
    draw();
  };
  const lookFrom = (direction) => {
    const distance = (0.9 * bounds.radius) / Math.sin((camera.fov * Math.PI) / 360);
    controls.target.copy(bounds.center);
    camera.position.copy(bounds.center).addScaledVector(new Vector3(...direction).normalize(), distance);
    controls.update();
    draw();
  };
  const setShape = (name, weight) => {
    for (const { meshes } of levels) {
      for (const mesh of meshes) {
        const index = mesh.morphTargetDictionary?.[name];
        if (index !== undefined) mesh.morphTargetInfluences[index] = weight;
      }
    }
    draw();
  };
  const fit = () => {
    const { clientWidth, clientHeight } = stage;
    renderer.setSize(clientWidth, clientHeight);
    camera.aspect = clientWidth / clientHeight;
    camera.updateProjectionMatrix();
    draw();
  };

  buildPanel({ camera, draw, levels, lighting, lookFrom, renderer, scene, setShape, showLevel, surfaces });
  controls.addEventListener('change', draw);
  new ResizeObserver(fit).observe(stage);
  fit();
  showLevel(0);
  lookFrom(VIEWS.front);
  message.textContent = '';
  window.fitdiffView = { VIEWS, bounds, camera, controls, draw, levels, lighting, lookFrom, renderer, scene, setShape, showLevel, surfaces };
}

function buildPanel({ draw, levels, lighting, lookFrom, renderer, scene, setShape, showLevel, surfaces }) {
  const redraw = (change) => (...values) => {
    change(...values);
    draw();
  };
  const view = section('View');
  buttons(view, Object.fromEntries(Object.entries(VIEWS).map(([name, direction]) => [name, () => lookFrom(direction)])));
  if (levels.length > 1) {
    const options = levels.map((level, index) => ({ value: String(index), label: `LOD ${index}` }));
    choice(view, 'level', options, '0', (index) => {
      showLevel(Number(index));
      describe();
    });
  }

  const light = section('Light');
  slider(light, { id: 'azimuth', label: 'Direction', min: -180, max: 180, step: 1, value: 35, unit: '°', onInput: redraw((value) => lighting.aim(value, lighting.elevation)) });
  slider(light, { id: 'elevation', label: 'Height', min: -90, max: 90, step: 1, value: 35, unit: '°', onInput: redraw((value) => lighting.aim(lighting.azimuth, value)) });
  slider(light, { id: 'strength', label: 'Strength', max: 6, value: 2.2, onInput: redraw((value) => (lighting.key.intensity = value)) });
  slider(light, { id: 'surroundings', label: 'Surroundings', max: 2, value: 0.6, onInput: redraw((value) => (scene.environmentIntensity = value)) });
  switches(light, [{ value: 'environment', label: 'Environment' }, { value: 'tones', label: 'Tone mapping', checked: false }], redraw((name, on) => {
    if (name === 'environment') lighting.setEnvironment(on);
    else renderer.toneMapping = on ? NeutralToneMapping : NoToneMapping;
  }));

  const surface = section('Surface');
  const maps = Object.entries(MAP_LABELS).map(([value, label]) => ({ value, label, disabled: !surfaces.has(value) }));
  choice(surface, 'surface', [{ value: 'lit', label: 'Lit' }, ...maps.map((map) => ({ ...map, label: `${map.label} only` }))], 'lit', redraw((what) => surfaces.show(what)));
  caption(surface, 'Maps in use when lit');
  switches(surface, maps, redraw((map, on) => surfaces.enable(map, on)));
  switches(surface, [{ value: 'wireframe', label: 'Wireframe', checked: false }], redraw((_, on) => surfaces.wireframe(on)));

  buildShapes(levels, setShape);
  const numbers = section('File');
  const describe = () => {
    const shown = levels.find(({ meshes }) => meshes[0].visible) ?? levels[0];
    const { vertices, triangles } = countsOf(shown);
    facts(numbers, [
      ['name', shown.name], ['size', `${(shown.bytes / 2 ** 20).toFixed(1)} MiB`], ['vertices', vertices.toLocaleString()],
      ['triangles', triangles.toLocaleString()], ['blendshapes', shapeNames(shown).length],
    ]);
  };
  describe();
}

function buildShapes(levels, setShape) {
  const names = shapeNames(levels[0]);
  const photo = levels[0].extras.expression_weights ?? {};
  const sliders = new Map();
  const all = section(`Blendshapes (${names.length})`);
  buttons(all, {
    Reset: () => sliders.forEach((input) => input.reset()),
    ...(names.some((name) => photo[name]) ? { "Photo's expression": () => sliders.forEach((input, name) => input.reset(photo[name] ?? 0)) } : {}),
  });
  for (const [group, members] of groupedShapes(names)) {
    const part = section(`${group} (${members.length})`, group === 'Eyes');
    for (const name of members) {
      sliders.set(name, slider(part, { id: `shape-${name}`, label: name, onInput: (weight) => setShape(name, weight) }));
    }
    buttons(part, { Reset: () => members.forEach((name) => sliders.get(name).reset()) });
  }
}
