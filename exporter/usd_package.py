"""The container of .usdz: an uncompressed zip archive whose files start at multiples of 64 bytes.

Written here and not by USD's own tool, so that equal files give equal bytes. It knows nothing of what is in them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

ALIGNMENT = 64
_LOCAL_HEADER = 30  # bytes before a file's name
_PADDING_ID = b"\x86\x19"  # an extra field that readers skip
_MIDNIGHT = (1980, 1, 1, 0, 0, 0)


def usdz_bytes(files: Mapping[str, bytes]) -> bytes:
    """The archive of the files by name, in their order; the first must be the root layer."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _MIDNIGHT)
            entry.create_system = 0
            start = stream.tell() + _LOCAL_HEADER + len(name.encode())
            padding = -start % ALIGNMENT
            if padding:
                padding += ALIGNMENT if padding < 4 else 0  # an extra field has four bytes of its own
                size = padding - 4
                entry.extra = _PADDING_ID + size.to_bytes(2, "little") + b"\0" * size
            archive.writestr(entry, data)
    return stream.getvalue()
