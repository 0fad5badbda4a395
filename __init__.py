"""FitDiff: one photograph becomes a game-ready head with relightable face reflectance."""

__version__ = "0.1.0"
