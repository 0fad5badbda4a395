"""The embedded weights and the scripts that made them."""
