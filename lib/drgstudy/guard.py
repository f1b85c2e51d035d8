"""The guard: it searches a report for data of credentialed patients before the report leaves the machine.

It searches all files under ``reports/<profile>``, all executed notebooks, and those of ``notebooks`` that are not as git
holds them, hidden ones too. They are decoded first: HTML, JSON, SVG, CSV and Markdown without their escapes and tags,
embedded data, archives, metadata of images, figures in PDF, and file names. Pixels and encrypted data are not read.
It searches for

- text: any 40 characters in a row of the cohort's notes, of which at least half are letters or digits (both notes and
  tables draw lines of dashes). Whitespace and case do not matter. What a table of data/reference, a template or a
  notebook's source says in git's last commit is public. The synthetic hospital's wording and the parameters of a
  notebook are not;
- ids of patients, stays and notes. MIMIC-III numbers its patients from 2, so that any count, code or case may equal an id:
  what names a number tells it, a name or column such as subject_id or a word such as "patient" before four digits or
  more. Of six digits or more, an id is found wherever it stands alone, unless the study's own JSON holds the number under
  another name (MIMIC-III's stays have numbers from 100,001, and it bills 125,557 DRGs);
- dates that have a day and are not in the public text, whoever they belong to.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import functools
import gzip
import html
import io
import json
import re
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np

from drgstudy import study
from drgstudy.study import Paths, StudyError, places, progress, read_json, run_and_exit, studies

LENGTH = 40  # characters: two texts share so many in a row only if one was copied from the other
BLOCK = 1 << 16  # characters hashed at a time, which fit the processor's cache
IDS = ["stay_id", "subject_id", "hadm_id", "icustay_id", "note_id"]
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_POWERS, _INVERSES = (np.cumprod(np.full(BLOCK, base, "uint64")) for base in (_BASE, pow(_BASE, -1, 1 << 64)))
_IS_WORD = np.array([chr(unit).isalnum() for unit in range(128)] + [True])

_BASE64 = re.compile(r"[A-Za-z0-9+/]{52,}+(?:\r?\n[ \t]*[A-Za-z0-9+/]++(?=[=\n\"'<)]|\Z))*+={0,2}")
_INLINE = r"</?(?:a|abbr|b|code|em|font|i|kbd|label|mark|s|small|span|strong|sub|sup|tspan|u|wbr)\b[^<>]*>"
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_WHOSE = r"subject|patient|(?:icu[ _-]?)?stay|hadm|icustay"
_NAMED = rf"(?i)(?<![a-z])(?:(?:{_WHOSE}|hospital|admission|note|case)[ _-]*ids?|(?:{_WHOSE})[ _-]*(?:no\.|nr\.|number)"
_COLUMN = re.compile(rf"{_NAMED}|{_WHOSE})")
_WORD = re.compile(r"(?i)case")  # a name of ids only where they are long: tables have a case 1, a case 2, …
_PDF = b"%PDF-1.4\n%\xac\xdc \xab\xba\n"  # as matplotlib begins it
_STRING = re.compile(rb"(?s)\((?:\\.|[^\\()])*\)")
_SHOW = re.compile(rb"(?s)(?:\((?:\\.|[^\\()])*\)|\[(?:\((?:\\.|[^\\()])*\)|[-\d.\s])*\])\s*T[jJ]")
_ID = re.compile(r"(?<![A-Za-z0-9.#])(?<!cell-id=)(\d{6,10})(?:\.0+)?(?![A-Za-z0-9]|\.\d)")
_NAMED_ID = re.compile(  # a mere "stay 12" may be the twelfth
    rf"{_NAMED}|(?:{_WHOSE}|case)(?=(?:[\W_]|is|was|ids?|no|number)*\d{{4}}))"
    r"""(?:[\s"'`:=#|\[({}*_/-]|\b(?:is|was|ids?|no|number)\b\.?)*"""
    r"(\d{1,10}(?:\.0+)?(?:(?:[,;]?\s+|;)\d{1,10}(?:\.0+)?)*)(?![A-Za-z0-9]|[.,]\d)"
)
_IN_NAME = re.compile(rf"(?i)(?:{_WHOSE}|ids?)[\W_]*(\d{{1,10}})(?!\d)|(?<!\d)(\d{{5,10}})(?!\d)")  # of a file
_NOTE_ID = re.compile(r"\b\d{5,9}-[A-Z]{2}-\d+\b")  # 10000032-DS-21
_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:1[89]|2[01])\d\d"
_NAME = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    rf"(?i)(?<![\w.-])(?:{_YEAR}([-/.]){_MONTH}\1{_DAY}|{_DAY}([-/.]){_DAY}\2{_YEAR}"
    rf"|{_DAY}(?:st|nd|rd|th)?[ -](?:of )?{_NAME},?[ -]{_YEAR}|{_NAME} {_DAY}(?:st|nd|rd|th)?,? {_YEAR})(?![\d-])"
)


class Leak(NamedTuple):
    """A file, what kind of thing it holds that it must not, and how many different ones."""

    file: Path
    kind: str
    number: int


def credentialed(profile: str) -> bool:
    """Whether a source of the profile is credentialed or of unknown kind, or no source is known."""
    known = [paths for paths in _paths(profile) if paths.source.is_file() or paths.flow.is_file()]
    return not known or any(study.source_of(paths)["kind"] == "credentialed" for paths in known)


def _paths(profile: str) -> list[Paths]:
    return [entry.paths(profile) for entry in studies()]


def leaks(profile: str) -> list[Leak]:
    """Search the profile's report and executed notebooks for data of its patients; [] if its data may be shown.

    Raises
    ------
    StudyError
        If a JSON file of the study can't be read.
    """
    if not credentialed(profile):
        return []
    paths = Paths(profile)
    folders, public = (paths.report, paths.executed, places.NOTEBOOKS), _public(places.NOTEBOOKS)
    files = [file for folder in folders[:2] for file in sorted(folder.rglob("*")) if file.is_file()]
    saved, committed = sorted(places.NOTEBOOKS.rglob("*.ipynb")), _committed(places.NOTEBOOKS)
    files += [file for file in saved if file.read_bytes() != committed.get(f"notebooks/{file.name}")]
    counts = set(public.numbers)
    ours = [file for name in ("source", "flow", "run") for file in paths.data.rglob(f"{name}.json")]
    for file in [*ours, *paths.report.rglob("[!.]*.json")]:
        most = np.inf if file in ours else 10**7  # all ids of MIMIC-IV are above it, and no count in a report is
        counts |= {count for count in _counts(read_json(file)) if count < most}
    ids, found, said = _ids(profile), [], {}
    for file in progress(files, desc="reading the report", delay=5):
        place = str(file.relative_to(next(folder for folder in folders if file.is_relative_to(folder))))
        views = [*_views(place)]
        try:
            views += dict.fromkeys(_texts(_without_vega(file)))
        except Exception:  # whatever the reader failed for, the file has not been searched
            found.append(Leak(file, "what no search can read, neither text nor an image", 1))
        said[file] = _distinct([_hashes(view) for view in views])
        numbers = {int(n) for view in views for n in _ID.findall(view)} - counts
        numbers |= {int(n) for view in views for n in _in_columns(view)}
        numbers |= {int(n) for found in _IN_NAME.findall(unquote(place)) for n in found if n}
        numbers |= {n for view in views for said_of, n in _named(view) if said_of not in public.named}
        numbers = int(_among(np.array(sorted(numbers), "int64"), ids).sum())
        numbers += len({note_id for view in views for note_id in _NOTE_ID.findall(view)})
        dates = {m[0] for view in views for m in _DATE.finditer(view)} - public.dates
        found += [Leak(file, *of) for of in (("patient, stay or note ids", numbers), ("dates", len(dates))) if of[1]]
    searched = _distinct(said.values())
    # Only what a table of 2**26 flags lets pass is looked up: that is faster than to search all hashes.
    table, shared = np.zeros(1 << 26, "bool"), []
    table[searched >> np.uint64(38)] = True
    for text in _notes(profile) if searched.size else ():
        hashes = _hashes(text)
        hashes = hashes[table[hashes >> np.uint64(38)]]
        shared.append(hashes[_among(hashes, searched)])
    shared = _distinct(shared)
    shared = shared[~_among(shared, public.hashes)]
    copied = {file: int(_among(hashes, shared).sum()) for file, hashes in said.items()}
    return found + [Leak(file, f"fragments of {LENGTH} characters of notes", n) for file, n in copied.items() if n]


def check(profile: str) -> None:
    """Raise StudyError if `leaks` finds any. The message names files, kinds and numbers, and quotes nothing."""
    found = [f"{leak.file} ({leak.kind}: {leak.number})" for leak in leaks(profile)]
    if found:
        more = f" and {len(found) - 10} more" if len(found) > 10 else ""
        raise StudyError(
            f"the data are credentialed, and what may not leave this machine stands in {', '.join(found[:10])}{more}; "
            "pass nothing of it on, mend the notebook that writes it, delete the file, and run make again"
        )


def _fold(text: str) -> str:
    if not text.isascii():
        text = re.sub("[\u00ad\u200b-\u200f\u2060\ufeff]", "", unicodedata.normalize("NFKC", text))
    return " ".join(text.casefold().split())


def _hashes(text: str) -> np.ndarray:
    """A hash (uint64) of each 40 characters in a row of the folded text, of which at least half are letters or digits.

    The hash is a polynomial modulo 2**64, computed from differences of running sums. If 10**7 fragments are compared
    with 10**9, two of them agree by chance once in some two thousand runs.
    """
    units = np.frombuffer(_fold(text).encode("utf-32-le", "surrogatepass"), "<u4")
    parts = [np.empty(0, "uint64")]
    for start in range(0, len(units) - LENGTH + 1, BLOCK - LENGTH + 1):
        block = units[start : start + BLOCK]
        hashes = _sums(block * _POWERS[: len(block)]) * _INVERSES[: len(block) - LENGTH + 1]
        parts.append(hashes[2 * _sums(_IS_WORD[np.minimum(block, 128)].astype("int32")) >= LENGTH])
    return np.concatenate(parts)


def _sums(values: np.ndarray) -> np.ndarray:
    """The sums of all `LENGTH` values in a row: one for each position."""
    sums = np.cumsum(values, dtype=values.dtype)
    sums[LENGTH:] -= sums[:-LENGTH].copy()
    return sums[LENGTH - 1 :]


def _distinct(parts: Iterable[np.ndarray]) -> np.ndarray:
    """The distinct hashes of all parts, ascending (`numpy.unique` takes ten times as long for such numbers)."""
    hashes = np.sort(np.concatenate([np.empty(0, "uint64"), *parts]))
    return hashes[np.r_[hashes[:1] >= 0, hashes[1:] != hashes[:-1]]]


def _among(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Which values are in the sorted array `ascending` (bool)."""
    place = np.searchsorted(ascending, values)
    return np.r_[ascending, ascending[-1:]][place] == values if ascending.size else np.zeros(len(values), "bool")


def _texts(data: bytes) -> Iterator[str]:
    """All texts in a file's bytes, read in every possible way; raises an exception for bytes of an unknown kind."""
    if data[:2] == b"\x1f\x8b":
        yield from _texts(gzip.decompress(data))
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name
                yield from _texts(archive.read(name))
    elif data[:4] == b"%PDF":
        yield from _shown(data)
    elif (text := _text(data)) is not None:
        yield from _documents(text)
    else:
        # EXIF, XMP and comments are plain text in the bytes of an image; Pillow reads what PNG compresses.
        yield "\n".join(run.decode() for run in re.findall(rb"[\t\n\r -~]{12,}", data.replace(b"\0", b"")))
        from PIL import Image

        with Image.open(io.BytesIO(data)) as image:
            image.load()
            for name, value in image.info.items():
                if isinstance(value, str):
                    yield from _documents(f"{name} {value}")


def _shown(data: bytes) -> Iterator[str]:
    """The texts of a figure in PDF: of its metadata, and of each stream a line for each command that shows letters."""
    if not data.startswith(_PDF):
        raise ValueError("a PDF that another program wrote")
    stream = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL)
    streams = [_SHOW.findall(zlib.decompress(part)) for part in stream.findall(data)]
    for commands in [_STRING.findall(stream.sub(b"", data)), *streams]:
        lines = [b"".join(part[1:-1] for part in _STRING.findall(command)) for command in commands]
        lines = [re.sub(rb"(?s)\\(.)", rb"\1", line) for line in lines]
        wide = [b"\0" in line or line[:2] == b"\xfe\xff" for line in lines]
        said = zip(lines, wide, strict=True)
        yield from _documents(
            "\n".join(line.decode("utf-16-be" if two else "latin-1", "replace") for line, two in said)
        )


def _without_vega(file: Path) -> bytes:
    """A file's bytes; of the page to explore without Vega, whose numbers and examples are nobody's, but may equal ids."""
    data = file.read_bytes()
    if file.name != "explore.html":
        return data
    from drgstudy import explore

    return data.replace(explore.bundle().encode(), b"")


def _text(data: bytes) -> str | None:
    """The bytes decoded from UTF-8, UTF-16 or Latin-1; None if they are not text."""
    wide = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        text = data.decode(wide if b"\0" in data[:2] or wide == "utf-16" else "utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return None if re.search(r"[\0-\x08\x0e-\x1a\x1c-\x1f]", text) else text


def _documents(text: str) -> Iterator[str]:
    """The `_views` of a text; for JSON, also inside HTML, of its names and values in a row, and of its names and texts."""
    for inside in re.findall(r"<script[^<>]*json[^<>]*>(.*?)</script>", text, re.DOTALL):
        yield from _documents(inside)
    documents = [text]
    if text.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            node = json.loads(text)
            documents = [" ".join(_said(node, glue)) for glue in ("", " ")]
    for document in documents:
        yield from _views(document)


def _said(node, glue: str) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if not (name == "id" and "cell_type" in node):  # a notebook's cell: its random id may be eight digits
                yield from (name, *_said(value, glue))
    elif isinstance(node, list) and all(isinstance(value, str) for value in node):
        yield glue.join(node)
    elif isinstance(node, list):
        for value in node:
            yield from _said(value, glue)
    elif isinstance(node, str) or not glue:
        yield str(node)


def _views(text: str) -> Iterator[str]:
    """A text as it is, with one layer of escapes after another removed, and each of these also without its tags."""
    inner: list[str] = []

    def unpacked(found: re.Match) -> str:
        try:
            inner.extend(_texts(base64.b64decode(found[0] + "==")))
        except Exception:  # no embedded file, just a long word
            return found[0]
        return " "

    text = _BASE64.sub(unpacked, re.sub(r"\x1b\[[0-9;]*m", "", text))
    yield from inner
    views = [text]
    for decoded in (html.unescape, _unescaped, _unescaped, unquote, html.unescape):
        views.append(decoded(views[-1]))
    for view in dict.fromkeys([*views, text.replace('""', '"'), text.replace("|", " ")]):
        yield view
        if "<" in view:
            yield " ".join(re.findall("<!--(.*?)-->", view, re.DOTALL))
            rows = re.sub("</?table[^<>]*>", "\0\0", re.sub("</tr>", "\0", " ".join(view.split())))
            rows = re.sub("</t[hd]>", "|", rows).replace("\0", "\n")
            cells = re.sub("</t[hd]>", " ", view)  # two cells are never one number
            for each, inline, block in ((cells, "", ""), (cells, "", " "), (cells, " ", " "), (rows, "", "")):
                yield html.unescape(re.sub("<[^<>]*>", block, re.sub(_INLINE, inline, each)))


def _unescaped(text: str) -> str:
    r"""The text without the escapes of JSON, Python and Markdown: \n, \u00e9, \x41, \", \_."""
    return _ESCAPE.sub(lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else " " if m[3] in "nrt" else m[3], text)


def _in_columns(view: str) -> Iterator[int]:
    """Whole numbers in the columns of ids of tables; an empty line or one of a single cell ends a table."""
    columns: dict[int, int] = {}  # by place, the fewest digits of an id
    for line in view.splitlines():
        cells = [cell.strip("\"' []*`") for cell in _cells(line)]
        named = {i: 1 for i, cell in enumerate(cells) if _COLUMN.fullmatch(cell)}
        named |= {i: 5 for i, cell in enumerate(cells) if _WORD.fullmatch(cell)}
        columns = columns | named if len(cells) > 1 or named else {}
        for i in columns.keys() - named:
            if i < len(cells) and re.fullmatch(rf"\d{{{columns[i]},10}}(\.0+)?", cells[i]):
                yield int(cells[i].partition(".")[0])


def _cells(line: str) -> list[str]:
    """The cells of a table's line: separated by bars, tabs, commas without a blank behind them, or several blanks."""
    for separator in "|\t":
        if separator in line:
            return re.split(rf"\s*\{separator}\s*", line)
    if re.search(r",(?! )", line):
        with contextlib.suppress(csv.Error, StopIteration):
            return next(csv.reader([line]))
    return re.split(r"\s{2,}", line)


def _named(view: str) -> Iterator[tuple[str, int]]:
    """Numbers behind a name of ids, each with the words that name it."""
    for found in _NAMED_ID.finditer(view):
        for number in re.findall(r"\d+(?:\.0+)?", found[1]):
            yield found[0].casefold(), int(number.partition(".")[0])


def _counts(node) -> Iterator[int]:
    """The whole numbers in JSON under a name that is not the name of an id."""
    for name, value in node.items() if isinstance(node, dict) else [("", value) for value in node]:
        if isinstance(value, dict | list):
            yield from _counts(value)
        elif isinstance(value, int | float) and name and not _COLUMN.fullmatch(name) and value == value // 1:
            yield int(value)


class _Public(NamedTuple):
    """What anybody can read in git: hashes of its text, numbers, dates, and what names numbers like ids."""

    hashes: np.ndarray
    numbers: set[int]
    dates: set[str]
    named: set[str]


@functools.cache
def _committed(notebooks: Path) -> dict[str, bytes]:
    """The facts, templates and notebooks of git's last commit, by their place in the project; {} if git has none."""
    wanted = ["data/reference", "lib/drgstudy/templates", "notebooks"]
    git = ["git", "-C", str(notebooks.parent), "archive", "--format=tar", "HEAD", "--", *wanted]
    try:
        packed = subprocess.run(git, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}


@functools.cache
def _public(notebooks: Path) -> _Public:
    """What is public: git's facts, templates and notebooks, but not their parameters, for these may be notes.

    Notebooks and facts of the working tree may hold what somebody pasted. Where there is no git, the facts are taken from
    there, and of notebooks the numbers and dates alone.
    """
    facts, written = _committed(notebooks), [file.read_bytes() for file in sorted(notebooks.glob("*.ipynb"))]
    known = [data for name, data in facts.items() if re.search(r"^data/reference/.*csv$|/templates/", name)]
    source = [data for name, data in facts.items() if re.fullmatch(r"notebooks/[^/]*\.ipynb", name)]
    if not facts:
        folder = Path(__file__).parent / "templates"
        known = [file.read_bytes() for file in [*sorted(places.REFERENCE.glob("*.csv")), *sorted(folder.iterdir())]]
    texts = [data.decode() for data in known]
    code = [
        "".join(cell["source"])
        for notebook in source or written
        for cell in json.loads(notebook)["cells"]
        if "parameters" not in cell["metadata"].get("tags", [])
    ]
    public = "\0".join([*texts, *(text.replace(",", " ") for text in texts)])  # a title as a cell, and as words
    said = "\0".join([public, *code])
    named = {name for text in [*texts, *code] for view in _views(text) for name, _ in _named(view)}
    dates = {date[0] for date in _DATE.finditer(said)}
    numbers = set(map(int, re.findall(r"\d{6,}", said)))
    return _Public(_distinct([_hashes(said if source else public)]), numbers, dates, named)


def _tables(profile: str, columns: list[str]) -> Iterator[tuple]:
    """The parquet files below data/<profile> that have some of these columns, and which of them."""
    import pyarrow.parquet

    for path in sorted(Paths(profile).data.rglob("[!.]*.parquet")):
        file = pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        if held := [name for name in columns if name in file.schema_arrow.names]:
            yield file, held


def _ids(profile: str) -> np.ndarray:
    """The ids in the cohorts, and of all patients and stays in the raw tables, as far as these can still be read."""
    from drgstudy import mimic

    ids = [np.empty(0, "int64")]
    for file, held in _tables(profile, IDS):
        ids += [np.unique(column.drop_null()).astype("int64") for column in file.read(held).columns]
    for paths in filter(lambda paths: paths.source.is_file(), _paths(profile)):
        keys = {**mimic.KEYS, **{table.upper(): key for table, key in mimic.KEYS.items()}}  # of MIMIC-IV and MIMIC-III
        for table, name in keys.items():
            with contextlib.suppress(StudyError):
                folder = Path(read_json(paths.source).get("folder", "/nowhere"))
                ids += [batch[name].dropna().to_numpy("int64") for batch in mimic.batches(folder, table, [name])]
    return np.unique(np.concatenate(ids))


def _notes(profile: str) -> Iterator[str]:
    """The cohorts' texts, 1,000 rows at a time, and the note that a user gave to notebook 13."""
    for file, held in _tables(profile, ["text", "diagnosis"]):
        with progress(total=file.metadata.num_rows, desc="searching for notes", unit=" rows", delay=5) as bar:
            for batch in file.iter_batches(1000, columns=held):
                yield "\0".join(text or "" for column in batch.columns for text in column.to_pylist())
                bar.update(len(batch))
    for params in sorted((places.NOTEBOOKS / "params" / profile).glob("13-*.yaml")):
        note = places.NOTEBOOKS / Path(study.read_params(params).get("note_file", "")).expanduser()
        if note.is_file():
            yield note.read_text(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    run_and_exit(check, *sys.argv[1:])
