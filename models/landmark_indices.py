"""Named points of the 468-point face mesh: eye and lip contours, brows, face oval, and the 68-point order.

Left and right are the CHARACTER's own, so `RIGHT_EYE` is on the left of a photo taken from the front. Every
contour is in walking order. This file holds numbers only: it knows neither the network that finds the points
nor the head whose vertices they mark.

The contours are those of MediaPipe's `face_mesh_connections.py` (Apache-2.0), walked once round. The 68-point
order is that of the iBUG 300-W mark-up: jaw, brows, nose, eyes, outer lip, inner lip, each from image left.
"""

RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
"""From the outer corner along the lower lid to the inner corner and back along the upper lid."""

LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
"""The mirror image of `RIGHT_EYE`, point for point."""

RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
"""From the outer end along the upper edge to the nose and back along the lower edge."""

LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
"""The mirror image of `RIGHT_BROW`, point for point."""

LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
"""From the right corner along the lower lip to the left corner and back along the upper lip."""

LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
"""As `LIPS_OUTER`, at the edge of the mouth opening."""

FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""From the top of the forehead down the left cheek to the chin and up the right cheek."""

NOSE_TIP = 4
RIGHT_MOUTH_CORNER = 61
LEFT_MOUTH_CORNER = 291
CHIN = 152

LANDMARK_COUNT = 468

LANDMARK_68 = (
    127, 234, 93, 58, 172, 136, 150, 176, 152, 400, 379, 365, 397, 288, 323, 454, 356,  # 0-16 jaw
    70, 63, 105, 66, 107,  # 17-21 right brow
    336, 296, 334, 293, 300,  # 22-26 left brow
    168, 197, 5, 4,  # 27-30 nose bridge to tip
    75, 97, 2, 326, 305,  # 31-35 under the nose
    33, 160, 158, 133, 153, 144,  # 36-41 right eye
    362, 385, 387, 263, 373, 380,  # 42-47 left eye
    61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91,  # 48-59 outer lip
    78, 82, 13, 312, 308, 317, 14, 87,  # 60-67 inner lip
)  # fmt: skip
"""The 468-mesh index nearest to each of the 68 points; the first is the jaw at the right ear (image left)."""
