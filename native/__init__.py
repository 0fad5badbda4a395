"""The compiled rasteriser, its typed Python face and its plain PyTorch twin."""
