"""Both studies on a hospital that does not say it is synthetic, as MIMIC does not: from raw tables to the guarded report."""

import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from test_kills import copy_of_the_project

from drgstudy.study import read_json


@pytest.mark.stress
def test_a_hospital_of_unknown_kind_is_studied_and_nothing_of_it_is_published(tmp_path):
    root, secret = copy_of_the_project(tmp_path / "study"), tmp_path / "secret"

    def make(*arguments):
        environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
        return subprocess.run(["make", *arguments], cwd=root, env=environment, stderr=subprocess.PIPE, text=True)

    assert (
        make("data/smoke/executed/01-hospital.ipynb", "data/smoke/executed/20-icu.ipynb", "PROFILE=smoke").returncode
        == 0
    )
    shutil.move(root / "data/smoke/raw", secret / "iv")
    shutil.move(root / "data/smoke/early/raw", secret / "iii")
    for telling in [*secret.rglob("hospital.json"), *secret.rglob("truth.csv.gz")]:
        telling.unlink()
    params = shutil.copytree(root / "notebooks/params/smoke", root / "notebooks/params/secret")
    (params / "04-hardness.yaml").unlink()  # which compares with the hospital's own truth
    for file in params.iterdir():
        file.write_text(file.read_text().replace("profile: smoke", "profile: secret"))
    (params / "01-hospital.yaml").write_text(f"profile: secret\nmimic: {secret / 'iv'}\nmimic_note: {secret / 'iv'}\n")
    (params / "20-icu.yaml").write_text(f"profile: secret\nmimic3: {secret / 'iii'}\n")

    done = make("all", "PROFILE=secret")
    assert done.returncode == 0, done.stderr[-2000:]
    report = root / "reports/secret"
    kinds = [about["kind"] for about in read_json(report / "numbers.json")["dataset"].values()]
    assert kinds == ["credentialed"] * 2
    pages = [*report.rglob("*.html")]
    assert len(pages) == 2 + len([*params.iterdir()])  # with index.html and explore.html
    assert all("(credentialed)" in page.read_text() for page in pages)
    assert not any(" synthetic hospital, seed" in page.read_text() for page in pages)
    shown = pd.read_csv(report / "tables/printed/by-drg.csv", dtype=str)
    assert "< 11" in set(shown["Test stays"]) and not shown["Test stays"].str.fullmatch(r"\d|10").any()
    assert not pd.read_csv(report / "tables/by-drg.csv")["test_cases"].between(1, 10).any()

    text = pd.read_parquet(root / "data/secret/stays.parquet")["text"].iloc[3]
    (report / "tables/remark.md").write_text(f"as in: {text[20:62]}")
    refused = make("report", "PROFILE=secret")
    assert refused.returncode and re.search(r"^error: .*reports/secret/tables/remark\.md", refused.stderr, re.MULTILINE)
    assert text[20:62] not in refused.stderr
