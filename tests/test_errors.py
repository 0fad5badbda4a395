import pickle

import pytest

from fitdiff.errors import FitDiffError, ImageError, MissingError, NoFaceError, UsageError

EXIT_CODES = {UsageError: 2, ImageError: 3, NoFaceError: 4, MissingError: 5}


@pytest.mark.parametrize(("kind", "code"), EXIT_CODES.items())
def test_message_and_exit_code(kind: type[FitDiffError], code: int) -> None:
    error = kind("photo", "a folder", "a file", "name one file")
    assert str(error) == "photo: got a folder; expected a file; name one file"
    assert error.exit_code == code
    assert isinstance(error, FitDiffError)


def test_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(NoFaceError("--face", "3", "0 to 1", "choose one of them")))
    assert isinstance(error, NoFaceError)
    assert str(error) == "--face: got 3; expected 0 to 1; choose one of them"
