// What the page needs of three.js, as one module. `node exporter/view_page/vendor/build.mjs` makes three.min.js of it.
export {
  Box3,
  Color,
  DirectionalLight,
  MathUtils,
  MeshBasicMaterial,
  NeutralToneMapping,
  NoToneMapping,
  PerspectiveCamera,
  PMREMGenerator,
  Scene,
  Sphere,
  Vector3,
  WebGLRenderer,
} from 'three';
export { OrbitControls } from 'three/addons/controls/OrbitControls.js';
export { RoomEnvironment } from 'three/addons/environments/RoomEnvironment.js';
export { MeshoptDecoder } from 'three/addons/libs/meshopt_decoder.module.js';
export { GLTFLoader } from 'three/addons/loaders/GLTFLoader.js';
export { KTX2Loader } from 'three/addons/loaders/KTX2Loader.js';
