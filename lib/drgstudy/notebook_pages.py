"""The page of an executed notebook: code folded, parameters a table, what it shows numbered; and that of all trainings."""

from __future__ import annotations

import ast
import functools
import re
import sys
from html import escape
from pathlib import Path

import nbformat
from markupsafe import Markup
from nbconvert import HTMLExporter
from PIL import Image

from drgstudy import trainings
from drgstudy.study import graph, results_only, study_of
from drgstudy.study.status import plain

TRAININGS = {"name": "trainings", "page": "pages/trainings.html", "title": "All trainings, side by side", "of_run": ""}
"""What the index lists in place of the trainings' own pages."""
_FORMS = {"figures": ("svg", "pdf", "png"), "tables": ("csv",)}


def about(file: Path) -> dict:
    """File, name, page, time, title and threshold of an executed notebook."""
    notebook = nbformat.read(file, as_version=4)
    titles = re.findall(r"^# (.+)$", notebook.cells[0].source, re.MULTILINE)
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    known = {"file": file, "name": file.stem, "page": f"pages/{file.stem}.html", "made": file.stat().st_mtime}
    return known | {
        "title": titles[0] if titles else file.stem,
        "mask_below": given.get("mask_below", 11),
    }


def content(file: Path, report: Path, pages: set[str]) -> dict:
    """What the page of an executed notebook shows.

    Parameters
    ----------
    file : Path
        The executed notebook.
    report : Path
        Folder of the report, to whose tables and figures the page links.
    pages : set of str
        Names of the notebooks that have a page. A link to another notebook is shown as mere text.

    Returns
    -------
    dict
        ``body``, its cells as HTML, without its title; ``parameters``, a dict for each; ``contents``, its sections' ids
        and headings as HTML; ``writes``, links to the tables and the figures that it writes, as HTML, by kind.
    """
    notebook = results_only(nbformat.read(file, as_version=4))
    parameters = _parameters(notebook)
    notebook.cells[0].source = re.sub(r"^# .*\n*", "", notebook.cells[0].source)  # the page has its title elsewhere
    _fold(notebook)
    _number(notebook, file.stem[:2], report)
    body, _ = _exporter().from_notebook_node(notebook)
    body = re.sub(r'<a href="((\d\d-[\w-]+)\.ipynb)">(.*?)</a>', functools.partial(_link, pages), body)
    written = dict.fromkeys(made for cell in notebook.cells for made in _written(cell, report))
    links = {kind: [Markup(_links(kind, name, report, name)) for of, name in written if of == kind] for kind in _FORMS}
    sections = re.findall(r'<h2 id="([^"]*)">(.*?)<a class="anchor-link"', body)
    return {
        "body": Markup(body),
        "parameters": parameters,
        "contents": [(Markup(place), Markup(heading)) for place, heading in sections],
        "writes": {kind: files for kind, files in links.items() if files},
    }


def compared(profile: str, listed: list[dict]) -> list[dict]:
    """All trainings of a profile for their page: for each study its name, and its table's columns and rows.

    Parameters
    ----------
    profile : str
    listed : list of dict
        As `about`, the notebooks that have a page. A row begins with the name of its page.
    """
    found: dict[str, dict] = {}
    for notebook in listed:
        if run := run_of(notebook["name"]):
            found.setdefault(study_of(notebook["name"]).name, {})[notebook["name"]] = run
    most = max((notebook["mask_below"] for notebook in listed), default=0)
    tables = {
        name: trainings.overview(study_of(next(iter(runs))).paths(profile), runs, most) for name, runs in found.items()
    }
    return [
        {"name": name, "columns": list(table), "rows": list(table.itertuples(name=None))}
        for name, table in tables.items()
    ]


def run_of(step: str) -> str:
    """The run that a step trains; "" if it trains none."""
    return (re.findall(r"^\d\d-(?:\w+-)?train-(.+)", step) or [""])[0]


def _parameters(notebook) -> list[dict]:
    """Each parameter's name, default, value, whether that differs, and what it is; these cells then show no code."""
    given, found = notebook.metadata.get("papermill", {}).get("parameters", {}), []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            lines = cell.source.splitlines()
            for node in ast.parse(cell.source).body:
                name, default = node.targets[0].id, ast.literal_eval(node.value)
                comment = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode().strip(" #")
                value = given.get(name, default)
                row = {"name": name, "value": plain(value), "default": plain(default), "what": comment}
                found.append(row | {"changed": value != default})
    return found


def _fold(notebook) -> None:
    """Join the cells of code that show nothing before the first section, and name each fold; parameters have none."""
    cells, setup, begun = [], None, False
    for cell in notebook.cells:
        begun |= cell.cell_type == "markdown" and bool(re.search("^## ", cell.source, re.MULTILINE))
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            continue
        if cell.cell_type == "code":
            if not begun and not cell.outputs and setup:
                setup.source += "\n\n" + cell.source
                continue
            is_setup = not begun and not cell.outputs
            setup = cell if is_setup else setup
            cell.metadata["summary"] = "Setup" if is_setup else "Code"
        cells.append(cell)
    notebook.cells = cells


def _number(notebook, prefix: str, report: Path) -> None:
    """Give each figure and table of the page its number ("06.F1", "06.T1") and its caption, and say it in its output."""
    heading, counts = "", {"T": 0, "F": 0}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = [heading, *re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)][-1]
            continue
        written = _written(cell, report)
        left = {kind: [name for of, name in written if of == kind] for kind in _FORMS}
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            is_table = re.search(r"<table\b", data.get("text/html", "")[:5000]) and "image/png" not in data
            if not is_table and "image/png" not in data:
                continue
            kind, names = ("T", left["tables"]) if is_table else ("F", left["figures"])
            counts[kind] += 1
            number, name = f"{prefix}.{kind}{counts[kind]}", names.pop(0) if names else ""
            said = (kind == "F" and _description(report / "figures" / f"{name}.png")) or re.sub("[*`]", "", heading)
            files = f" {_links('tables' if is_table else 'figures', name, report)}" if name else ""
            caption = f"<b>{number}</b> {escape(said)}{'' if said[-1:] in '.?!' else '.'}{files}"
            output.metadata |= {"id": number, "label": f"Table {number}", "caption": caption}
            if is_table:
                data["text/html"] = _captioned(data["text/html"], caption)
            else:
                cell.metadata["alt"] = f"Figure: {heading}"


def _captioned(table: str, caption: str) -> str:
    """A table's HTML with the caption before its own, if it has one."""
    if "<caption>" in table:
        return table.replace("<caption>", f"<caption>{caption} ", 1)
    return re.sub(r"(<table\b[^>]*>)", lambda begin: f"{begin[1]}<caption>{caption}</caption>", table, count=1)


def _written(cell, report: Path) -> list[tuple[str, str]]:
    """Tables and figures that a cell's code writes and that lie in the report: kind and name, in the order of the code.

    A name that is composed ("early-table-1-{system}") stands for all files whose names fit.
    """
    if cell.cell_type != "code":
        return []
    return [
        (kind, file.stem)
        for kind, name in graph.writes(cell.source)
        for file in sorted((report / kind).glob(f"{name}.{_FORMS[kind][0]}"))
        if file.name[0] != "."
    ]


def _links(kind: str, name: str, report: Path, label: str = "") -> str:
    """Links to the files of a table or figure by their forms, or one link called `label` if that is given."""
    forms = [form for form in _FORMS[kind] if (report / kind / f"{name}.{form}").is_file()][: 1 if label else None]
    return " · ".join(f'<a href="../{kind}/{name}.{form}">{label or form.upper()}</a>' for form in forms)


def _description(file: Path) -> str:
    """The caption in a figure's metadata; "" if it has none."""
    if not file.is_file():
        return ""
    with Image.open(file) as image:
        return image.text.get("Description", "")


def _link(pages: set[str], found: re.Match) -> str:
    """A link to a notebook as one to its page, or to that of all trainings; without a page, its words alone."""
    place = found[2] if found[2] in pages else "trainings" if found[2].endswith("-train") else ""
    return f'<a href="{place}.html">{found[3]}</a>' if place else found[3]


class _Exporter(HTMLExporter):
    """Uses nbconvert's own templates and ours, whatever the user has in ``~/.local/share/jupyter``."""

    def get_prefix_root_dirs(self):
        return [str(Path(sys.prefix, "share", "jupyter"))]


@functools.cache  # its templates are compiled once
def _exporter() -> HTMLExporter:
    return _Exporter(
        template_name="basic",
        extra_template_basedirs=[],
        extra_template_paths=[str(graph.TEMPLATES)],
        template_file="cells.html.j2",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
