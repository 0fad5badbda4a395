"""Camera, rasteriser interface, interpolation and the reflectance shader."""
