"""The licences under which morphable models are published, as far as their file formats tell.

A file does not say under which terms its user has it: the command line can override all of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """identifier: SPDX, "LicenseRef-..." where SPDX has none; text: goes beside the converted model."""

    identifier: str
    commercial: bool
    text: str


LSFM = Licence(
    "LicenseRef-LSFM",
    False,
    """Large Scale Facial Model (LSFM), Imperial College London, iBUG group.
Given out on application, for academic research that is not commercial; it may not be passed on. Read the agreement
that came with your copy: it, not this summary, is the licence.
""",
)
BASEL = Licence(
    "LicenseRef-Basel-Face-Model",
    False,
    """Basel Face Model, University of Basel.
Given out on registration, for research, teaching and private use that are not commercial; it may not be passed on.
Read the agreement that came with your copy: it, not this summary, is the licence.
""",
)
FLAME = Licence(
    "LicenseRef-FLAME",
    False,
    """FLAME, Max Planck Institute for Intelligent Systems.
Taken to be for scientific research that is not commercial. Terms may differ between editions, and a file does not tell
which it is: if yours allows more, say so with --licence and --commercial. Read the agreement that came with your copy:
it, not this summary, is the licence.
""",
)
ICT = Licence(
    "MIT",
    True,
    """ICT-FaceKit, Copyright (c) 2020 University of Southern California, Institute for Creative Technologies,
Vision and Graphics Lab. Published under the MIT licence:

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
""",
)
GNM = Licence(
    "Apache-2.0",
    True,
    """Generative aNthropometric Model (GNM) head, Google LLC.
Licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0
""",
)
