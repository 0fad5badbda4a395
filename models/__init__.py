"""Networks, the morphable model and their checkpoints."""
