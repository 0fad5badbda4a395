"""The errors that a user meets, and the exit code that the command line gives for each.

Every message names the thing, what came, what was expected and the remedy. This module knows nothing of how
an error is shown.
"""


class FitDiffError(Exception):
    """Something that the user can put right.

    `str(error)` reads "THING: got X; expected Y; REMEDY".
    """

    exit_code = 1

    def __init__(self, thing: str, got: str, expected: str, remedy: str) -> None:
        super().__init__(thing, got, expected, remedy)  # all four in args, so that the error pickles
        self.thing = thing
        self.got = got
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.thing}: got {self.got}; expected {self.expected}; {self.remedy}"


class UsageError(FitDiffError):
    """An option or an argument has a value that cannot be used."""

    exit_code = 2


class ImageError(FitDiffError):
    """A photo cannot be read."""

    exit_code = 3


class NoFaceError(FitDiffError):
    """A photo was read, but the face that was asked for is not in it."""

    exit_code = 4


class MissingError(FitDiffError):
    """A model, a back end or a package is not installed, or is not the one that was asked for."""

    exit_code = 5
