"""Contact sheets: size, one tile a head, a JPEG below its limit."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fitdiff.errors import UsageError
from fitdiff.training.contact_sheet import TILE, contact_sheet, sheet_of_heads, write_sheet
from fitdiff.training.synthetic import SyntheticStudio


def test_sheet_has_a_tile_for_every_face(skins_folder: Path, tmp_path: Path) -> None:
    sheet = contact_sheet(skins_folder, count=2, seed=3)
    assert sheet.shape == (TILE[0], 2 * TILE[1], 3) and sheet.dtype == np.uint8
    first, second = sheet[:, : TILE[1]], sheet[:, TILE[1] :]
    assert not np.array_equal(first, second) and min(first.std(), second.std()) > 10
    large, small = first[:, : TILE[1] * 2 // 3], first[:, TILE[1] * 2 // 3 :]
    assert large.std() > 10 and min(half.std() for half in np.split(small, 2)) > 10
    write_sheet(tmp_path / "sheet.jpg", sheet, limit=60_000)
    assert (tmp_path / "sheet.jpg").stat().st_size < 60_000
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape == sheet.shape
    with pytest.raises(UsageError, match="jpg"):
        write_sheet(tmp_path / "sheet.png", sheet)


def test_a_sheet_of_nobody_is_an_error(skins_folder: Path) -> None:
    with pytest.raises(UsageError, match="no heads"):
        sheet_of_heads([], SyntheticStudio(skins_folder).renderer)
