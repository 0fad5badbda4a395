"""The pixels of the head's textures, and their files."""
