"""What docs/adding.md promises, in a copy: a hospital's own warehouse and a third study, without touching the library."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from drgstudy.study import ROOT, Paths

SOURCE = {
    "first": "# Whose stays are these?\n\n*Reads* `warehouse/notes.csv` and `warehouse/bills.csv`. *Writes* `source.json`, "
    "`drgs.parquet`, `stays.parquet` and `flow.json`.",
    "parameters": 'profile = "warehouse"  # which folder under data/ and reports/\nlike = ""  # another parameter file',
    "read": """from pathlib import Path
import pandas as pd, pyarrow
from drgstudy import cohort, harmonize, provenance
from drgstudy.flow import write_rows
from drgstudy.study import Paths, fingerprint
paths = Paths(profile)
files = [paths.data / "warehouse" / name for name in ("notes.csv", "bills.csv")]
about = {"kind": "synthetic", "name": "a warehouse", "fingerprint": fingerprint(files[1])}
provenance.write_json(paths.source, about, "03-warehouse", files, about)
notes = pd.read_csv(files[0]).rename(columns={"patient": "subject_id", "encounter": "hadm_id", "summary": "text"})
bills = pd.read_csv(files[1], dtype={"drg": str}).rename(columns={"encounter": "hadm_id", "drg": "drg_code"})
bills = bills.rename(columns={"title": "description"}).assign(drg_type="MS")""",
    "build": """mapping = harmonize.harmonize(bills)
write_rows(mapping, paths.drgs, cohort.MAPPING, by="03-warehouse", inputs=[paths.source])
batches = pyarrow.Table.from_pandas(notes[["subject_id", "hadm_id", "text"]], preserve_index=False).to_batches(50)
stays, flow = cohort.build_cohort(map(cohort.extract, batches), bills, mapping, min_words=5)
write_rows(stays, paths.stays, cohort.STAYS, by="03-warehouse", inputs=[paths.source, paths.drgs])
flow |= {"source": about, "stays_fingerprint": fingerprint(paths.stays), "words": cohort.word_count_test(stays)}
provenance.write_json(paths.flow, flow, "03-warehouse", [paths.stays])""",
}
STUDY = {
    "first": "# How often is it right?\n\n*Reads* `stays.parquet`, `flow.json` and `runs/<run>/`. *Writes* numbers.",
    "parameters": 'profile = "warehouse"  # which folder under data/ and reports/\nlike = ""  # another parameter file\n'
    'run = "tfidf"  # the run that is looked at',
    "count": """import pandas as pd
from drgstudy import plots, tables
from drgstudy.flow import read_flow
from drgstudy.predictions import read_runs
from drgstudy.study import Paths
paths = Paths(profile)
flow, made = read_flow(paths), read_runs(paths, [run])[run]
right = made.logits.argmax(1) == made.truth
numbers = {"dataset": flow["source"], "stays_fingerprint": flow["stays_fingerprint"], "right": float(right.mean())}
counts = pd.Series({"right": right.sum(), "wrong": (~right).sum()})
plots.save(plots.bars(counts, "answer", "stays", "a warehouse"), paths.figures, "answers", "a warehouse", "Right and wrong answers.")
tables.write_numbers(paths, "40-third", numbers)""",
}
ENTRY = {
    "name": "Third study",
    "goal": "third",
    "notebooks": [40, 49],
    "headline": "40-third",
    "part": "third.html",
    "folder": "",
}
PARAMS = {
    "03-warehouse": {},
    "05-train-tfidf": {"run": "tfidf", "model": "tfidf", "settings": {"min_df": 1}, "seed": 1},
    "40-third": {"run": "tfidf"},
}
COURSES = {
    "291": ("HEART FAILURE & SHOCK W MCC", "acute systolic heart failure with edema, diuresed with furosemide in the unit"),
    "470": ("MAJOR JOINT REPLACEMENT OR REATTACHMENT OF LOWER EXTREMITY W/O MCC", "elective right hip replacement, walked with therapy"),
    "871": ("SEPTICEMIA OR SEVERE SEPSIS W/O MV >96 HOURS W MCC", "septic shock from a urinary source, fluids and pressors given"),
}  # fmt: skip


def write_notebook(file: Path, cells: dict[str, str]) -> None:
    made = [nbformat.v4.new_markdown_cell(cells["first"])]
    for name, code in list(cells.items())[1:]:
        made.append(nbformat.v4.new_code_cell(code, metadata={"tags": ["parameters"]} if name == "parameters" else {}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel}), file)


def fingerprints(library: Path) -> dict[str, str]:
    files = (file for file in library.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(library)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A copy with a warehouse of another shape than MIMIC's, its notebook, a third study, and what `make third` makes of them."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("lib", "notebooks", "data/reference"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "CITATION.cff"):
        shutil.copy(ROOT / name, root)
        os.utime(root / name, (0, 0))  # older than the environment in use, into which nothing is to be installed
    drgs = [code for code in COURSES for _ in range(20)]
    said = [
        f"Brief Hospital Course:\n{COURSES[drg][1]}, day {i}\n\nDischarge Disposition:\nhome\n"
        for i, drg in enumerate(drgs)
    ]
    tables = root / "data" / "warehouse" / "warehouse"
    tables.mkdir(parents=True)
    pd.DataFrame({"encounter": range(60), "patient": range(60), "summary": said}).to_csv(
        tables / "notes.csv", index=False
    )
    titles = [COURSES[drg][0] for drg in drgs]
    pd.DataFrame({"encounter": range(60), "drg": drgs, "title": titles}).to_csv(tables / "bills.csv", index=False)
    write_notebook(root / "notebooks" / "03-warehouse.ipynb", SOURCE)
    write_notebook(root / "notebooks" / "40-third.ipynb", STUDY)
    studies = root / "notebooks" / "studies.yaml"
    studies.write_text(studies.read_text() + yaml.safe_dump([ENTRY], sort_keys=False))
    params = root / "notebooks" / "params" / "warehouse"
    params.mkdir()
    for name, values in PARAMS.items():
        (params / f"{name}.yaml").write_text(yaml.safe_dump({"profile": "warehouse"} | values))
    page = '<h1 id="part-3">Third study</h1>\n<p>{{ "{:.0f}".format(100 * numbers.third.right) }} % are right.</p>\n'
    (root / "lib" / "drgstudy" / "templates" / "third.html").write_text(page)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PYTHONPATH", "CONDA"))}
    environment = clean | {"VIRTUAL_ENV": sys.prefix, "OMP_NUM_THREADS": "1"}
    command = ["make", "third", "PROFILE=warehouse"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def test_the_library_was_not_touched(made):
    before, after = (fingerprints(root / "lib" / "drgstudy") for root in (ROOT, made))
    assert {name: after.pop(name) for name in set(after) - set(before)}.keys() == {"templates/third.html"}
    assert after == before


def test_a_warehouse_becomes_a_cohort_and_a_run(made):
    data = made / Paths("warehouse").data.relative_to(ROOT)
    stays = pd.read_parquet(data / "stays.parquet")
    assert len(stays) == 60 and sorted(stays["drg_v34"].unique()) == sorted(COURSES)
    steps = json.loads((data / "flow.json").read_text())["notes"]
    assert [step["kept"] for step in steps] == [60] * len(steps)
    assert (data / "runs" / "tfidf" / "predictions.npz").is_file()


def test_a_third_study_has_its_target_its_numbers_and_its_part_of_the_page(made):
    numbers = json.loads((made / "reports" / "warehouse" / "numbers.json").read_text())
    assert set(numbers) == {"third", "dataset", "text"} and numbers["third"]["right"] > 0.8
    index, page = ((made / "reports" / "warehouse" / name).read_text() for name in ("index.html", "paper-3.html"))
    assert "% are right." in page and '<a href="paper-3.html">Paper 3: Third study</a>' in index
    assert "Right and wrong answers." in page and 'id="further"' in page  # a figure that no template places
