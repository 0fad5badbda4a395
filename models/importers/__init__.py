"""Readers of other people's morphable models, from the user's own copies."""

from .formats import FORMATS, guess_format, read_source
from .source import SourceHead

__all__ = ["FORMATS", "SourceHead", "guess_format", "read_source"]
