"""Nothing of credentialed patients leaves: leaks planted in every kind of place are found, ordinary content is let be."""

import base64
import contextlib
import gzip
import html
import io
import json
import re
import subprocess
import unicodedata
from urllib.parse import quote

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from drgstudy import guard, notebook_pages, plots, study, tables
from drgstudy.study import StudyError

FACTS = {f"data/reference/{file.name}": file.read_bytes() for file in study.REFERENCE.glob("*.csv")}
COURSE = """Mr. ___ is a 67 year old man w/ h/o CAD (s/p "CABG" '09) & COPD who p/w <2 days of fevers, productive cough.
# Pneumonia: CXR showed RLL opacity; started on ceftriaxone/azithromycin, O2 sat 88% -> 95% on 2L.
----------------------------------------------------------------------
He was weaned to room air by the third day and was, per Dr. Müller, ambulating "without any difficulty"."""
EARLY = (
    "CCU nursing progress note: pt sedated on propofol gtt, bp labile 80-110, levophed weaned off at four this morning."
)
STAYS, PATIENTS = [22345678, 29876543, 24444444], [10001217, 10002428, 10003400]
LEAK = "started on ceftriaxone/azithromycin, O2 sat 88%"
EXEMPT = "CHRONIC OBSTRUCTIVE PULMONARY DISEASE W MCC"


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A credentialed study that has not reported anything yet."""
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    as_it_is = {f"notebooks/{file.name}": file.read_bytes() for file in study.places.NOTEBOOKS.glob("*.ipynb")}
    monkeypatch.setattr(guard, "_committed", lambda notebooks: as_it_is | FACTS)
    paths, early = study.Paths("secret"), study.Paths("secret", "early")
    about = {"kind": "credentialed", "name": "MIMIC-IV v3.1"}
    study.write_json(paths.source, about | {"folder": "/gone", "rows": {"drgcodes": 761856, "admissions": 546028}})
    study.write_json(paths.flow, {"source": about, "drg_rows": [{"step": "DRG rows", "kept": 125557, "removed": 0}]})
    study.write_json(early.source, about | {"folder": "/gone"})
    stays = {"stay_id": STAYS, "subject_id": PATIENTS}
    stays["text"] = [COURSE, "Short.", f"Billed as {EXEMPT} again."]
    pd.DataFrame(stays).to_parquet(paths.stays)
    early.data.mkdir(exist_ok=True)
    pd.DataFrame({"stay_id": [145834], "text": [EARLY]}).to_parquet(early.notes)
    cohort = {"stay_id": [145834, 125557, 220045], "subject_id": [217, 10006, 2012], "diagnosis": ["SEPSIS"] * 3}
    pd.DataFrame(cohort).to_parquet(early.cohort("ms"))
    return paths


def write(file, content):
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_bytes(content) if isinstance(content, bytes) else file.write_text(content, encoding="utf-8")


def png(**texts) -> bytes:
    about, file = PngInfo(), io.BytesIO()
    for how, text in texts.items():
        getattr(about, f"add_{how.rstrip('z')}")("Comment", text, zip=how.endswith("z"))
    Image.new("L", (2, 2)).save(file, "PNG", pnginfo=about)
    return file.getvalue()


def pdf(text: str, **about) -> bytes:
    figure, file = plt.figure(), io.BytesIO()
    figure.text(0, 0, text)
    plt.close(figure)
    figure.savefig(file, format="pdf", metadata=about)
    return file.getvalue()


def jpeg(text: str) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x010E] = text
    Image.new("L", (2, 2)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def in_notebook(**changes) -> str:
    cell = nbformat.v4.new_code_cell("1")
    cell.metadata = changes.pop("metadata", {})
    if "evalue" in changes:
        cell.outputs = [nbformat.v4.new_output("error", ename="KeyError", **changes)]
    elif changes:
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": changes["html"]})]
    return nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))


COLOURED = "".join(f"\x1b[0;31m{word}\x1b[0m " for word in LEAK.split())
SVG = f"<svg xmlns='http://www.w3.org/2000/svg'><!-- {html.escape(LEAK)} --><path d='M 1 2'/></svg>"
SPANS = "".join(f"<span style='color: #{i:06d}'>{part}</span>" for i, part in enumerate(re.split("( |(?<=t))", LEAK)))
PLACES = {
    "entities": ("pages/a.html", "<p>" + "".join(f"&#{ord(c)};" for c in LEAK)),
    "entities in Markdown": ("a.md", "".join(f"&#{ord(c)};" for c in LEAK)),
    "decomposed letters": ("a.md", unicodedata.normalize("NFD", 'per Dr. Müller, ambulating "without any diffi')),
    "spans": ("pages/a.html", f"<p>{SPANS}</p>"),
    "rows": ("pages/a.html", "<table>" + "".join(f"<tr><td>{word}</td></tr>\n" for word in LEAK.split())),
    "breaks and spans": ("a.html", LEAK.replace(" on ", "<br/>o<b>n</b> ").replace("O2 ", "O2</p><p>")),
    "attribute": ("index.html", f'<img alt="Figure: {html.escape(LEAK)}" src="x.png">'),
    "script": ("index.html", f"<script>let note = {json.dumps(LEAK.replace(' ', chr(10)))}</script>"),
    "JSON in a page": ("explore.html", f'<script type="application/json">{json.dumps([{"words": LEAK.split()}])}</script>'),
    "notebook output": ("executed/05-train.ipynb", in_notebook(html=f"<pre>{html.escape(LEAK)}</pre>")),
    "notebook metadata": ("executed/05-train.ipynb", in_notebook(metadata={"papermill": {"parameters": {"note": LEAK}}})),
    "traceback": ("executed/05-train.ipynb", in_notebook(evalue="'x'", traceback=["-----", f"KeyError: {COLOURED}"])),
    "quoted exception": ("executed/05-train.ipynb", in_notebook(evalue=repr(LEAK.replace(" ", "\n")), traceback=[])),
    "JSON escapes": ("numbers.json", '{"a": {"b": ["' + "".join(f"\\u{ord(c):04x}" for c in LEAK) + '"]}}'),
    "JSON words": ("numbers/12-why.json", json.dumps({"words": [[word, 0.5] for word in LEAK.split()]})),
    "CSV cell": ("tables/t.csv", pd.DataFrame({"a": [f'x "{COURSE[48:110]}" y']}).to_csv()),
    "Markdown": ("tables/t.md", f"| a | {LEAK.replace(' ', ' | ')} |"),
    "SVG comment": ("figures/f.svg", SVG),
    "PDF text": ("figures/f.pdf", pdf(LEAK)),
    "PDF metadata": ("figures/f.pdf", pdf("", Subject=f"({LEAK} − \\)")),
    "PNG tEXt": ("figures/f.png", png(text=LEAK)),
    "PNG zTXt": ("figures/f.png", png(textz=LEAK)),
    "PNG iTXt": ("figures/f.png", png(itxt=LEAK)),
    "PNG iTXt, compressed": ("figures/f.png", png(itxtz=LEAK)),
    "JPEG EXIF": ("figures/f.jpg", jpeg(LEAK)),
    "embedded PNG": ("a.html", f"<img src='data:image/png;base64,{base64.b64encode(png(textz=LEAK)).decode()}'>"),
    "embedded SVG": ("a.html", f"<img src='data:image/svg+xml,{quote(SVG)}'>"),
    "embedded SVG, base64": ("a.html", f"<img src='data:image/svg+xml;base64,{base64.b64encode(SVG.encode()).decode()}'>"),
    "wrapped base64": ("a.md", base64.encodebytes(LEAK.encode() * 3).decode()),
    "UTF-16": ("a.txt", LEAK.encode("utf-16")),
    "UTF-16, no mark": ("a.txt", LEAK.encode("utf-16-le")),
    "Latin-1": ("a.txt", 'day and was, per Dr. Müller, ambulating "without'.encode("latin-1")),
    "gzip": ("t.csv.gz", gzip.compress(LEAK.encode())),
    "hidden": (".cache/.a", LEAK),
    "file name": ("figures/" + quote(LEAK, safe=" %,") + ".txt", "-"),
    "case and blanks": ("a.md", LEAK.upper().replace(" ", "\n\t \u00a0")),
    "invisible characters": ("a.md", LEAK.replace("e", "e\u200b\u00ad")),
    "early note": ("a.md", EARLY[30:72]),
}  # fmt: skip
IDS = {
    "stay id": ("a.html", f"<td>{STAYS[1]}</td>"),
    "patient id as a float": ("a.md", f"of {PATIENTS[0]}.0, who"),
    "id in a file's name": (f"figures/why-{STAYS[0]}.txt", "-"),
    "id in a link": ("a.html", f"<a href='why_{STAYS[0]}.html'>why</a>"),
    "note id": ("a.json", '["10000032-DS-21"]'),
    "MIMIC-IV's id under any name": ("numbers.json", json.dumps({"x": STAYS[2]})),
    "early stay id": ("executed/a.ipynb", in_notebook(html="<p>stay 145834</p>")),
    "id that is also a count, named": ("a.md", "hadm_id=125557"),
    "short id in JSON": ("numbers.json", '{"subject_id": 217}'),
    "stay in JSON": ("numbers.json", json.dumps({"why": {"stay": STAYS[2]}})),
    "short id in the JSON of a page": ("explore.html", '<script type="application/json">[{"subject_id": 217}]</script>'),
    "short id in prose": ("a.md", "as in Patient 10006."),
    "short id in CSV": ("t.csv", "words,subject_id,split\n80,11,test\n90,217,test\n"),
    "short id in Markdown": ("t.md", "| Words | Subject ID |\n|---|---|\n| 80 | 217 |"),
    "short id in a table": ("a.html", pd.DataFrame({"w": [1], "subject_id": [217]}).to_html()),
    "short id as an index": ("a.html", pd.DataFrame({"w": [1, 2]}, pd.Index([3, 217], name="subject_id")).to_html()),
    "short id as plain text": ("a.txt", repr(pd.DataFrame({"subject_id": [5, 217], "w": [1, 2]}))),
}  # fmt: skip
DATES = [
    "2180-05-06",
    "2180-05-06T22:15:00",
    "2180-5-6 22:15",
    "[**2180-5-6**]",
    "05/06/2180",
    "6.5.2180",
    "6 May 2180",
]
DATES += ["May 6, 2180", "Sept. 6th, 2180", "2180/05/06"]


def test_what_the_study_itself_writes_passes(profile):
    """Counts that are ids too, titles that notes hold too, versions, years: by the study's own writers."""
    table = pd.DataFrame({"DRG": [EXEMPT], "Stays": ["125,557"], "Rows": [125557], "Share": [0.145834], "Year": [2012]})
    shown = tables.write_table(table, table, profile.report / "tables", "table-1", "MIMIC-IV v3.1")
    figure, axes = plt.subplots(figsize=(2, 2), layout="constrained")
    axes.set_title(EXEMPT)
    plots.save(figure, profile.report / "figures", "figure-1", "MIMIC-IV v3.1")
    plt.close(figure)
    image = base64.encodebytes((profile.report / "figures" / "figure-1.png").read_bytes()).decode()
    cells = [nbformat.v4.new_markdown_cell("# Which?\n125557 of 761,856 rows | torch 2.13.0\n\n-------------")]
    cells += [nbformat.v4.new_code_cell("stays[['stay_id', 'subject_id']] # 2012")]
    outputs = [{"text/html": shown.to_html(), "text/plain": "   patients  stays\n0  2012    217"}, {"image/png": image}]
    cells[1].outputs = [nbformat.v4.new_output("display_data", data) for data in outputs]
    cells[0].id, cells[1].id = str(STAYS[0]), "0217"  # all digits, by chance
    notebook, executed = nbformat.v4.new_notebook(cells=cells), profile.executed / "06-results.ipynb"
    executed.parent.mkdir()
    nbformat.write(notebook, executed)
    study.write_json(
        profile.report / "numbers.json", {"rows": {"kept": 125557}, "cohort": {"stays": 217, "kind": "217"}}
    )
    write(
        profile.report / "pages" / "06-results.html",
        notebook_pages.content(executed, profile.report, set())["body"] + "<hr><p>" + "-" * 90,
    )
    write(profile.report / "index.html", f"<img alt='Figure 1' src='data:image/png;base64,{image}'>{shown.to_html()}")
    assert guard.leaks("secret") == []
    guard.check("secret")
    write(
        profile.report / "tables" / "table-1.csv",
        (profile.report / "tables" / "table-1.csv").read_bytes() + LEAK.encode(),
    )
    assert [leak.file.name for leak in guard.leaks("secret")] == ["table-1.csv"]


@pytest.mark.parametrize("place", PLACES | IDS)
def test_a_planted_leak_is_found_and_its_file_named(profile, place):
    name, content = (PLACES | IDS)[place]
    file = (profile.data if name.startswith("executed/") else profile.report) / name
    write(file, content)
    found = guard.leaks("secret")
    assert {leak.file for leak in found} == {file}
    assert [leak.kind.split()[0] for leak in found] == ["fragments" if place in PLACES else "patient,"]


@pytest.mark.parametrize("date", DATES)
def test_dates_are_found(profile, date):
    write(profile.report / "a.md", f"admitted on {date}.")
    assert [(leak.file.name, leak.kind, leak.number) for leak in guard.leaks("secret")] == [("a.md", "dates", 1)]


@pytest.mark.parametrize(
    "harmless",
    [
        "torch 2.13.0, tzdata 2025.2, pages 2008-2013, 1.5.20, 3/4 of 2012, May 2180",
        "stay 217, patients 10006, 3 stays 2012, per stay 12.5, a patient 1,217",
        '<g id="line2d_14"><path d="M 145834.5 0.22345678 L 1458340 10006"/></g><b id="a22345678">#145834</b>',
        "22,345,678 tokens, 223456789, 0x22345678, -0.10001217",
        "- " * 90 + "=" * 90 + " _ " * 90,
    ],
)
def test_ordinary_content_is_let_be(profile, harmless):
    write(profile.report / "a.html", harmless)
    assert guard.leaks("secret") == []


def test_check_names_the_file_and_quotes_nothing(profile):
    write(profile.report / "a.md", f"{LEAK} {STAYS[0]}")
    with pytest.raises(StudyError, match=r"a\.md \(patient, stay or note ids: 1\).*a\.md \(fragments of 40") as error:
        guard.check("secret")
    assert str(STAYS[0]) not in str(error.value) and "ceftriaxone" not in str(error.value)


@pytest.mark.parametrize(
    "opaque", [bytes(range(256)) * 9, pd.DataFrame({"a": [1]}).to_parquet(), png()[:-30], b"%PDF-1.7\n\x80"]
)
def test_what_cannot_be_read_is_refused(profile, opaque):
    write(profile.report / "model.bin", opaque)
    assert [(leak.file.name, leak.kind.split(",")[0]) for leak in guard.leaks("secret")] == [
        ("model.bin", "what no search can read")
    ]


@pytest.mark.parametrize("kind", ["credentialed", "unheard of", None])
def test_the_least_open_source_decides(profile, kind):
    write(profile.report / "a.md", LEAK)
    open_data = {"kind": "synthetic", "name": "synthetic hospital"}
    study.write_json(profile.source, open_data)
    study.write_json(profile.flow, {"source": open_data})
    assert guard.leaks("secret")  # because of the early study's
    early = study.Paths("secret", "early").source
    study.write_json(early, open_data)
    assert not guard.leaks("secret")
    study.write_json(early, open_data | {"kind": kind})
    assert guard.leaks("secret")
    for file in (profile.source, profile.flow, early):
        file.unlink()
    assert guard.leaks("secret")


def test_raw_tables_in_reach_give_their_ids_too(profile, tmp_path):
    write(tmp_path / "hosp" / "patients.csv", "subject_id,gender\n19999999,F\n")
    study.write_json(profile.source, {"kind": "credentialed", "name": "MIMIC-IV", "folder": str(tmp_path)})
    write(profile.report / "a.md", "of 19999999")
    assert [leak.kind for leak in guard.leaks("secret")] == ["patient, stay or note ids"]


TEXT = " ".join(COURSE.split("\n---")[0].split())
MANGLED = {
    "as it is": str,
    "upper": str.upper,
    "lines": lambda text: text.replace(" ", "\r\n  "),
    "HTML": lambda text: html.escape(text).replace(" ", "&nbsp;"),
    "JSON": lambda text: json.dumps(text),
    "percent": quote,
}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(TEXT) - 40), st.sampled_from(sorted(MANGLED)), st.text("ab\n", max_size=9))
def test_any_40_characters_are_found_and_30_are_not(profile, start, how, around):
    fragment = TEXT[start : start + 40]
    write(profile.report / "30.html", f"<p>{around}¶{MANGLED[how](fragment[:30])}¶{around}</p>")
    write(profile.report / "40.html", f"<p>{around}¶{MANGLED[how](f'¶ {fragment} ¶')}¶{around}</p>")
    expected = ["40.html"] if fragment == fragment.strip() else []  # blanks at the ends belong to what stands around
    assert set(expected) <= {leak.file.name for leak in guard.leaks("secret")} <= {"40.html"}


def test_hashes_are_those_of_every_window():
    """Two texts agree in as many hashes as in 40-character windows, also across the blocks that are hashed at a time."""
    rng = np.random.default_rng(0)
    long = "".join(rng.choice(list("abcdefgh"), 2 * guard.BLOCK + 100))
    hashes = guard._hashes(long)
    assert len(set(hashes.tolist())) == len(hashes) == len(long) - 39
    for start in (0, guard.BLOCK - 40, guard.BLOCK - 39, guard.BLOCK - 20, guard.BLOCK, len(long) - 40):
        assert guard._hashes(long[start : start + 40]).tolist() == [hashes[start]]


@pytest.mark.parametrize("name", ["runs/llama/adapter/adapter_model.safetensors", "runs/probe/frozen/0000.safetensors", "stays.parquet",
    "runs/caml/vocabulary.json", "early/notes.parquet", "early/runs/llama-ms/fold-1/adapter/adapter_config.json", "executed/13-try-it.ipynb",
    "review/errors.csv", "failed/05-train.txt", "model.joblib"])  # fmt: skip
def test_git_ignores_all_that_is_made_of_credentialed_data(name):
    ignored = [f"data/paper/{name}", "reports/paper/index.html", "reports/paper/figures/figure-1.png"]
    with contextlib.suppress(FileNotFoundError):
        listed = subprocess.run(
            ["git", "check-ignore", *ignored], cwd=study.places.NOTEBOOKS.parent, capture_output=True, text=True
        )
        if listed.returncode == 128:
            pytest.skip("not a git checkout")
        assert listed.stdout.split() == ignored
