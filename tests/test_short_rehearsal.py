"""The short half of `make rehearse`: both cohorts by both profiles, from PhysioNet's folders, and a training that is killed."""

import pandas as pd
import pytest
from rehearsal import Author, kill_in_a_training, went_on_at

from drgstudy.study import read_json


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    author = Author(tmp_path_factory.mktemp("author"), print, patients=120, icu_patients=300)
    author.edit("published/03-cohort", test_share=0.4)
    return author


@pytest.mark.parametrize("profile", ["paper", "published"])
def test_both_cohorts_come_from_physionets_folders_and_the_guard_passes(author, profile):
    author.make(profile, f"data/{profile}/executed/21-early-cohort.ipynb")
    author.make(profile, "cohort")  # whose end is the guard
    data, report = author.root / "data" / profile, author.root / "reports" / profile
    names = [read_json(data / study / "source.json")["name"] for study in ("", "early")]
    assert names == ["MIMIC-IV v2.2, MIMIC-IV-Note v2.2 (credentialed)", "MIMIC-III v1.4 (credentialed)"]
    first = [step["step"] for step in read_json(data / "flow.json")["notes"]][2]
    assert first == {"paper": "at least 40 words", "published": "at least 41 words"}[profile]
    assert len(pd.read_parquet(data / "stays.parquet")) > 50 and len(pd.read_parquet(data / "early/ms.parquet")) > 20
    assert "MIMIC-III v1.4 (credentialed)" in (report / "index.html").read_text()
    files = [file for file in report.rglob("*") if file.is_file()]
    assert files and not any(str(author.home.parent).encode() in file.read_bytes() for file in files)


def test_a_killed_training_of_a_sharded_local_base_goes_on(author):
    step, folder = "data/paper/executed/05-train-llama.ipynb", author.root / "data/paper/runs/llama"
    kill_in_a_training(author.start("paper", step), folder)
    said = author.make("paper", step)
    assert "paper: to be trained: 1;" in said and went_on_at("llama", said) > 0
    assert read_json(folder / "run.json")["settings"]["base"] == "~/models/llama-7b"
