"""What a user can mend, and how it is said: one sentence."""

from __future__ import annotations

import reprlib
import sys
from typing import NoReturn


class StudyError(Exception):
    """What a user can mend: the message names the file, column or parameter, what was expected and what to do."""


def short_repr(value) -> str:
    """`repr` for an error's sentence: one short line, however large or deep the value is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 40, 40
    return short.repr(value)


def one_line(error: Exception) -> str:
    """What a library's error says, as part of a sentence: one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def quoted(value) -> str:
    """A value for an error's sentence; a long one may be a piece of a note and is not repeated."""
    text = " ".join(str(value).split())
    return text if len(text) <= 22 else f"a text of {len(text):,} characters"


def run_and_exit(command, *arguments) -> NoReturn:
    """End this process with what a command line's function returns; what a user can mend is one sentence, and 1."""
    try:
        sys.exit(command(*arguments))
    except StudyError as error:
        sys.exit(f"error: {error}")
