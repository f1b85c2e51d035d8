"""The tables and figures of a report as its pages show them: numbered in the order of the page, with files and notebook."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd
from PIL import Image

from drgstudy.study import graph

LONG = 28  # characters of a cell that is read as prose
WIDE = 105  # characters of a table that a page of paper takes only sideways
FILES, LETTERS = {"tables": "tables/printed/[!.]*.csv", "figures": "figures/[!.]*.png"}, {"tables": "T", "figures": "F"}
GLANCE = ("System", "Model", "macro-AUC", "macro-F1", "micro-F1", "top-1 accuracy")
_FILES = {  # what is linked, where it is there
    "tables": {"CSV": "tables/{}.csv", "as printed": "tables/printed/{}.csv"},
    "figures": {"SVG": "figures/{}.svg", "PDF": "figures/{}.pdf"},
}


class Exhibits:
    """All tables and figures that lie in a report.

    Parameters
    ----------
    report : Path
        The report's folder.
    notebooks : Path
        The folder of the notebooks that wrote them.
    pages : dict of notebook to page
        Pages of the executed notebooks, relative to `report`.

    Attributes
    ----------
    known : dict of kind to set of key
        Kind is "tables" or "figures".
    numbers : dict of (kind, key) to (number, page)
        What the pages have numbered so far; number is such as "1.T3".
    """

    def __init__(self, report: Path, notebooks: Path, pages: dict[str, str]):
        self.report, self.pages, self.makers = report, pages, makers(notebooks)
        self.numbers: dict[tuple[str, str], tuple[str, str]] = {}
        self.known = {kind: {file.stem for file in report.glob(pattern)} for kind, pattern in FILES.items()}

    def made_by(self, key: str) -> str:
        """The notebook whose code writes a table or figure of this name; "" if none does."""
        return next((notebook for name, notebook in self.makers if fnmatchcase(key, name)), "")

    def on(self, page: str, place: int) -> Callable[[str, str], dict | None]:
        """A function for the template of a page, by which it shows tables and figures in its order.

        Parameters
        ----------
        page : str
            Its file's name.
        place : int
            The study's place, with which its numbers begin.

        Returns
        -------
        function of kind and key
            Returns what the page needs, or None if there is no such table or figure. Whatever no page has shown yet gets
            the next number of its kind; anything else is referred to.
        """
        counted = Counter()

        def show(kind: str, key: str) -> dict | None:
            if not (about := self._about(kind, key)):
                return None
            is_new = (kind, key) not in self.numbers
            if is_new:
                counted[kind] += 1
                self.numbers[kind, key] = f"{place}.{LETTERS[kind]}{counted[kind]}", page
            number, home = self.numbers[kind, key]
            return about | {"number": number, "is_new": is_new, "home": f"{'' if home == page else home}#{number}"}

        return show

    def refer(self, kind: str, key: str) -> dict | None:
        """As a function of `on`, for a page that numbers nothing."""
        if not (about := self._about(kind, key)):
            return None
        number, page = self.numbers.get((kind, key), ("", ""))
        return about | {"number": number, "is_new": False, "home": f"{page}#{number}"}

    def shown(self, kind: str) -> set[str]:
        """The keys that a page has numbered."""
        return {key for of, key in self.numbers if of == kind}

    def caption(self, key: str) -> str:
        """The caption in a figure's own file."""
        return self._figure(key)["caption"]

    def _about(self, kind: str, key: str) -> dict:
        """What a page needs of a table or figure but for its number; {} if there is none."""
        if key not in self.known[kind]:
            return {}
        notebook = self.made_by(key)
        links = {words: form.format(key) for words, form in _FILES[kind].items()}
        links = {words: place for words, place in links.items() if (self.report / place).is_file()}
        links |= {f"notebook {notebook}": self.pages[notebook]} if notebook in self.pages else {}
        about = self._table(key) if kind == "tables" else self._figure(key)
        dataset = about["dataset"]
        about |= {"key": key, "links": links, "whose": "run"}
        about["badge"] = f"this run: {dataset}" if dataset else "a drawing, no data"
        if "(published)" in dataset:
            about["badge"] = dataset
            about["whose"] = "both" if " beside " in dataset else "published"
        return about

    def _table(self, key: str) -> dict:
        """Cells, columns (name, classes), dataset and whether the table is wide."""
        table = pd.read_csv(self.report / "tables" / "printed" / f"{key}.csv", dtype="str", keep_default_na=False)
        dataset = "".join(table.pop("dataset")[:1]) if "dataset" in table else ""
        columns, width = [], 0
        for name, cells in table.items():
            shown, longest = cells[cells != "–"], cells.str.len().max() if len(cells) else 0
            is_words = len(shown) and shown.str.contains("[A-Za-z]{3}").mean() > 0.5
            classes = {"words": is_words, "prose": longest > LONG, "theirs": "published" in name.casefold()}
            columns.append((name, " ".join(each for each, is_so in classes.items() if is_so)))
            width += max(min(longest, LONG), *map(len, name.split()), 0) + 2
        return {"columns": columns, "rows": table.to_numpy().tolist(), "dataset": dataset, "wide": width > WIDE}

    def _figure(self, key: str) -> dict:
        """Image (base64), its size in CSS pixels (a quarter larger than in print), dataset and caption of its metadata."""
        file = self.report / "figures" / f"{key}.png"
        with Image.open(file) as image:
            text, dpi = image.text, image.info.get("dpi", (96, 96))[0]
            width, height = (round(120 * pixels / dpi) for pixels in image.size)
        about = {"dataset": text.get("Source", ""), "caption": text.get("Description", "")}
        return about | {"image": base64.b64encode(file.read_bytes()).decode(), "width": width, "height": height}


def glance(table: dict) -> dict:
    """Of a table with a column "DRG set", the rows of all DRGs, and the columns that are compared at a glance."""
    names = [name for name, _ in table["columns"]]
    kept, of_set = [i for i, name in enumerate(names) if name in GLANCE], names.index("DRG set")
    rows = [[row[i] for i in kept] for row in table["rows"] if row[of_set] == "All DRGs"]
    return table | {"columns": [table["columns"][i] for i in kept], "rows": rows, "wide": False}


def makers(notebooks: Path) -> list[tuple[str, str]]:
    """Names under which notebooks save tables and figures (`graph.writes`), each with its notebook."""
    files = sorted(notebooks.glob("*.ipynb"))
    return [(name, file.stem) for file in files for _, name in graph.writes(graph.notebook_code(file))]
