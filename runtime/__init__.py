"""From a photo to an avatar: crop, pose, guided sampling."""
