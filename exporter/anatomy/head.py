"""An avatar made ready to be looked at from all sides: corneas, closing lids, fitting teeth, a closed neck.

The pipeline's own head keeps to the morphable model's vertices. This adds what no network has to know, on the way
out. It knows nothing of files, materials and textures.
"""

from __future__ import annotations

from ...runtime.avatar import Avatar
from .cornea import with_corneas
from .eyeball import with_round_eyes
from .eyelids import with_closing_lids
from .lips import with_meeting_lips
from .mouth import with_fitting_mouth
from .neck import with_closed_neck

CORNEAS = ("cornea_left", "cornea_right")  # parts that a finished head has beyond the morphable model's


def finished_head(avatar: Avatar) -> Avatar:
    """The same avatar with a finished head; a finished one comes back as it is.

    Original vertices keep their indices; new ones follow them, with all blendshapes. Every step does without the
    parts, shapes or open rim that a head lacks.

    - Eyeballs are split where they show, and turn without changing shape under the eyeLook shapes.
    - The parts "cornea_left" and "cornea_right" lie before the irises and follow the eyeballs.
    - The eyeBlink shapes are scaled so that the lids just meet.
    - The neutral face's lips meet; with the photo's expression they are where they were.
    - The teeth stand at the lip line, the upper ones still under every shape, the lower ones rigid with the jaw;
      a tongue that comes out opens the jaw as far as it needs.
    - The neck's rim is turned in and closed.
    """
    if any(part in avatar.topology.part_names for part in CORNEAS):
        return avatar
    with_eyes = with_closing_lids(with_corneas(with_round_eyes(avatar)))
    return with_closed_neck(with_fitting_mouth(with_meeting_lips(with_eyes)))
