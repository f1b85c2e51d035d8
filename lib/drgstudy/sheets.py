"""CSV tables that people fill in and give back, written so that no spreadsheet takes a text in them for a formula."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from drgstudy.study import StudyError, atomic, one_line

_FORMULA = r"'*[=+\-@\t\r]"  # the beginning of what a spreadsheet would compute, behind any apostrophes


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a sheet, all columns as str; raises StudyError if it is no CSV or lacks one of `columns`."""
    try:
        sheet = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, EOFError, ValueError) as error:
        raise StudyError(f"{path} is no readable table ({one_line(error)}); save it as CSV in UTF-8") from None
    return with_columns(columns, sheet.replace(rf"^'(?={_FORMULA})", "", regex=True), path)


def write(sheet: pd.DataFrame, path: Path) -> None:
    """Write a sheet, with an apostrophe before what looks like a formula; `read` takes it off again."""
    with atomic(path) as beside:
        words = sheet.select_dtypes(["object", "str"])
        words = words.replace(rf"^(?={_FORMULA})", "'", regex=True)
        # Texts are quoted: a carriage return would otherwise end the row.
        sheet.assign(**words).to_csv(beside, index=False, quoting=csv.QUOTE_NONNUMERIC)


def with_columns(columns: list[str], sheet: pd.DataFrame, name: str | Path) -> pd.DataFrame:
    """Return the sheet; raises StudyError, with `name` for the sheet, if it lacks one of `columns`."""
    if missing := [column for column in columns if column not in sheet]:
        needed = f"its columns must include {', '.join(columns)}, separated by commas"
        raise StudyError(f"{name} has no column '{missing[0]}'; {needed}")
    return sheet
