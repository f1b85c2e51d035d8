"""The short half of `make rehearse`: cohorts from PhysioNet's folders by both profiles, and a training that is killed."""

import pandas as pd
import pytest
from rehearsal import Author, kill_in_a_training, went_on_at

from drgstudy.study import read_json

EARLY, LLAMA = "data/{}/executed/21-early-cohort.ipynb", "data/paper/executed/05-train-llama.ipynb"


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    return Author(tmp_path_factory.mktemp("author"), print, patients=120, icu_patients=300)


def test_both_cohorts_come_from_physionets_folders_and_the_guard_passes(author):
    author.make("paper", f"{EARLY.format('paper')} cohort")  # the end of `make cohort` is the guard
    data, report = author.root / "data/paper", author.root / "reports/paper"
    names = [read_json(data / study / "source.json")["name"] for study in ("", "early")]
    assert names == ["MIMIC-IV v2.2, MIMIC-IV-Note v2.2 (credentialed)", "MIMIC-III v1.4 (credentialed)"]
    assert len(pd.read_parquet(data / "stays.parquet")) > 30 and len(pd.read_parquet(data / "early/ms.parquet")) > 20
    assert names[1] in (report / "index.html").read_text()
    files = [file for file in report.rglob("*") if file.is_file()]
    assert files and not any(str(author.home.parent).encode() in file.read_bytes() for file in files)


def test_published_reads_the_folders_that_were_named_for_paper(author):
    author.make("published", EARLY.format("published"))
    early = author.root / "data/published/early"
    assert read_json(early / "source.json")["name"] == "MIMIC-III v1.4 (credentialed)"
    assert not pd.read_parquet(early / "apr.parquet")["drg"].str.startswith("863").any()


def test_a_killed_training_of_a_sharded_local_base_goes_on(author):
    folder = author.root / "data/paper/runs/llama"
    kill_in_a_training(author.start("paper", LLAMA), folder)
    said = author.make("paper", LLAMA)
    assert "paper: to be trained: 1;" in said and went_on_at("llama", said) > 0
    assert read_json(folder / "run.json")["settings"]["base"] == "~/models/llama-7b"
