"""`make rehearse`: an author's whole path, from data that lie as PhysioNet lays them out to two guarded reports.

Everything is as with MIMIC but small: the hospital, its ICU and the models (`rehearsal`). Both profiles run both studies.
On the way make is killed and started again, parameters of figures are changed, and review sheets are filled in.
"""

import html
import re
import time

import pandas as pd
import pytest
from rehearsal import Author, kill_in_a_training, went_on_at

from drgstudy import drgs
from drgstudy.errors import CATEGORIES
from drgstudy.study import read_json

REVIEWER, REMARK = "Dr. Quillfeather", "surely a slip of the keyboard"
COUNTED = re.compile(r"(?i)stays|cases|patients|errors|^n$")


def name_the_authors_files(author: Author) -> dict[str, int]:
    """What lies in the papers' repositories: titles mapped by hand, and lists of held-out stays, whose lengths it returns."""
    data, theirs, v34 = author.root / "data/paper", author.home / "theirs", drgs.v34()["title"]
    theirs.mkdir()
    mapping = pd.read_parquet(data / "drgs.parquet").dropna(subset="drg_v34")
    table = {"raw_description": mapping["title"], "DRG_34_description": mapping["drg_v34"].map(v34)}
    pd.DataFrame(table).to_csv(theirs / "titles.csv", index=False)
    lists = {}
    for system in drgs.SYSTEMS:
        stays = pd.read_parquet(data / "early" / f"{system}.parquet").query("fold == 0")
        lists[system] = stays["subject_id"].astype(str) + "_" + stays["stay_id"].astype(str)
        lists[system].rename("stay").to_csv(theirs / f"{system}.csv", index=False)
    author.edit("published/02-harmonization", title_table="~/theirs/titles.csv")
    author.edit("published/03-cohort", test_share=0.4)  # scikit-learn stratifies no smaller share of so few stays
    author.edit("published/21-early-cohort", **{f"hold_out_{system}": f"~/theirs/{system}.csv" for system in lists})
    return {system: len(stays) for system, stays in lists.items()}


def check_report(author: Author, profile: str) -> None:
    """What everybody may see of a credentialed study, searched independently of the guard."""
    data, report = author.root / "data" / profile, author.root / "reports" / profile
    numbers = read_json(report / "numbers.json")
    assert {about["kind"] for about in numbers["dataset"].values()} == {"credentialed"} and len(numbers["dataset"]) == 2
    files = {file: file.read_bytes().decode(errors="ignore") for file in report.rglob("*") if file.is_file()}
    params = [file.stem for file in (author.root / "notebooks/params" / profile).glob("*.yaml")]
    pages = {file.stem for file in files if file.parent.name == "pages"}
    assert pages == {*params}, {*params} - pages
    said = html.unescape(re.sub(r"[\w+/]{200,}|\s+", " ", " ".join(files.values())))  # without embedded images
    for place in (author.home.parent, "~/models", "~/physionet", author.home.name + "/models"):
        assert str(place) not in said, place
    assert all(folder.name in said for folder in (author.home / "models").iterdir() if folder.is_dir())
    assert REVIEWER not in said and REMARK not in said
    notes = [" ".join(note.split()) for note in author.notes]
    pieces = {note[i : i + 60] for note in notes for i in range(0, len(note) - 60, len(note) // 8 + 1)}
    assert not [piece for piece in pieces if piece in said]
    ids = pd.read_parquet(data / "stays.parquet")[["stay_id", "subject_id"]].to_numpy().ravel()
    assert not set(ids) & {int(n) for n in re.findall(r"(?<![\w.#=-])[1-9]\d{7}(?![\w.])", said)}
    for file in report.glob("tables/**/*.csv"):
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
        for column in filter(COUNTED.search, rows.columns if "published" not in file.stem else []):
            shown = {cell for cell in rows[column] if re.fullmatch(r"[1-9]|10", cell)}
            assert not shown, (file.name, column)


@pytest.mark.stress
def test_an_authors_whole_path(tmp_path, capsys):
    def say(line):
        with capsys.disabled():
            print(f"\n{line}", end="", flush=True)

    start, author = time.monotonic(), Author(tmp_path, say)
    data, report = author.root / "data/paper", author.root / "reports/paper"
    run = author.start("paper")
    kill_in_a_training(run, data / "runs/llama")
    before = author.trained("paper")
    author.log(f"paper: make all, killed while it trained llama; {len(before)} runs were trained")
    said = author.make("paper")
    of_first = len([*(author.root / "notebooks/params/paper").glob("05-train-*.yaml")])
    there = f"there already, and taken as they are: {len(before)}"
    assert f"paper: to be trained: {of_first - len(before)}; {there}\n" in said
    percent, after = went_on_at("llama", said), author.trained("paper")
    assert percent > 0 and before and before.items() <= after.items()
    author.log(f"paper: make all, both studies; llama went on at {percent} %; the guard passed")
    check_report(author, "paper")
    author.log("paper: nothing in the report that must not be there")

    for step in ("01-hospital", "03-cohort"):
        author.edit(f"paper/{step}", mask_below=12)
    author.edit("paper/11-trust", bins=5)
    sheet = "data/paper/review/harmonization.csv"
    proposed = pd.read_csv(author.root / sheet, dtype=str, keep_default_na=False)["proposed"][0]
    author.fill_in(sheet, slice(0, 0), decision=proposed, reviewer=REVIEWER, remark=REMARK)
    author.edit("paper/02-harmonization", review=sheet)
    author.fill_in("data/paper/review/errors.csv", slice(None), category=CATEGORIES[3], comment=REMARK)
    sheets = {file: file.read_bytes() for file in (data / "review").iterdir()}
    said = author.make("paper")
    assert re.findall(r"to be trained: (\d+)", said) == ["0"] and author.trained("paper") == after
    assert {file: file.read_bytes() for file in sheets} == sheets
    mapping = pd.read_parquet(data / "drgs.parquet")
    assert mapping.loc[mapping["provenance"] == "reviewed", "drg_v34"].tolist() == [proposed]
    counted = pd.read_csv(report / "tables/printed/error-categories.csv", index_col="Category")["Table 4 (this run)"]
    assert int(counted[CATEGORIES[3]]) == len(pd.read_csv(data / "review/errors.csv")) > 1
    check_report(author, "paper")
    author.log("paper: make all with other figures and two review sheets filled in: both count, nothing was trained")

    listed = name_the_authors_files(author)
    author.make("published")
    flows = {study: read_json(author.root / "data/published" / study / "flow.json") for study in ("", "early")}
    assert [step["step"] for step in flows[""]["notes"]][2] == "at least 41 words"
    assert {system: of["listed"] for system, of in flows["early"]["hold_out"].items()} == listed
    assert "by hand" in set(pd.read_parquet(author.root / "data/published/drgs.parquet")["provenance"])
    for step in ("02-harmonization", "03-cohort", "21-early-cohort"):
        page = (author.root / f"reports/published/pages/{step}.html").read_text()
        assert 'rules = "published"' in html.unescape(re.sub("<[^<>]*>", "", page))
    author.log("published: make all, both studies, with the authors' table of titles and lists; the guard passed")
    check_report(author, "published")
    author.log("published: nothing in the report that must not be there")

    author.make("paper", "clean")
    assert {file: file.read_bytes() for file in sheets} == sheets
    assert [file.name for file in data.iterdir()] == ["review"] and not report.exists()
    author.log("make clean kept the review sheets")
    say(f"{(time.monotonic() - start) / 60:6.1f} min in all\n")
