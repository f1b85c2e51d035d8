"""Errors that a user can correct, each told in one sentence."""

from __future__ import annotations

import reprlib
import sys
from typing import NoReturn


class StudyError(Exception):
    """An error that a user can correct. It names the file, column or parameter, what was expected, and what to do."""


def short_repr(value) -> str:
    """`repr` for an error message: one short line, however large or deeply nested the value is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 40, 40
    return short.repr(value)


def one_line(error: Exception) -> str:
    """The message of a library's error in one line of at most 200 characters; the error's type if it has no message."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def quoted(value) -> str:
    """A value for an error message; only the length of a text above 22 characters, which may be part of a note."""
    text = " ".join(str(value).split())
    return text if len(text) <= 22 else f"a text of {len(text):,} characters"


def run_and_exit(command, *arguments) -> NoReturn:
    """Call `command` and end this process with the status it returns; after a StudyError, with its message and 1."""
    try:
        sys.exit(command(*arguments))
    except StudyError as error:
        sys.exit(f"error: {error}")
