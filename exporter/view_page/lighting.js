// One directional light that stays where it is while the camera moves, and a room that reflects.
import { DirectionalLight, MathUtils, PMREMGenerator, RoomEnvironment } from './vendor/three.min.js';

export class Lighting {
  constructor(renderer, scene) {
    this.scene = scene;
    this.key = new DirectionalLight('white', 2.2);
    scene.add(this.key, this.key.target);
    const generator = new PMREMGenerator(renderer);
    this.room = generator.fromScene(new RoomEnvironment(), 0.04).texture;
    generator.dispose();
    this.aim(35, 35);
    this.setEnvironment(true);
    scene.environmentIntensity = 0.6;
  }

  // Degrees: azimuth from the front towards the character's left, elevation above the horizon.
  aim(azimuth, elevation) {
    [this.azimuth, this.elevation] = [azimuth, elevation];
    const polar = MathUtils.degToRad(90 - elevation);
    this.key.position.setFromSphericalCoords(1, polar, MathUtils.degToRad(azimuth));
  }

  setEnvironment(on) {
    this.scene.environment = on ? this.room : null;
  }
}
