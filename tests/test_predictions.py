"""The predictions file: what is written comes back, and whatever does not fit is refused by name."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from drgstudy import provenance
from drgstudy.predictions import Predictions, read_predictions, write_predictions
from drgstudy.study import StudyError, fingerprint, read_json, write_json


@pytest.fixture
def run(tmp_path):
    stays = tmp_path / "stays.parquet"
    cohort = pd.DataFrame({"stay_id": range(20000001, 20000005), "drg_v34": ["001", "291", "001", "001"]})
    with provenance.written(stays, "03-cohort") as beside:
        cohort.assign(split=["test"] * 3 + ["train"]).to_parquet(beside)
    return Predictions(
        stay_ids=np.array([20000001, 20000002, 20000003]),
        truth=np.array([0, 1, 0]),
        labels=np.array(["001", "291"]),
        logits=np.array([[1.5, -1], [0, 2], [3, 4]], np.float32),
        run={"run": "llama", "split": "split", "dataset": {"fingerprint": fingerprint(stays)}},
    )


def test_what_is_written_comes_back(run, tmp_path):
    folder = tmp_path / "llama"
    write_predictions(folder, run)
    back = read_predictions(folder, tmp_path / "stays.parquet")
    for name in ("stay_ids", "truth", "labels", "logits"):
        np.testing.assert_array_equal(getattr(back, name), getattr(run, name))
    assert back.outputs is None and back.logits.dtype == np.float32
    uneven = run.logits + np.float32(1 / 3)
    write_predictions(folder, dataclasses.replace(run, logits=uneven, outputs=np.ones((3, 345), np.float32)))
    assert read_predictions(folder).outputs.shape == (3, 345)
    np.testing.assert_array_equal(read_predictions(folder).logits, uneven.astype(np.float16))
    assert back.run["versions"]["torch"].startswith("2.")


def test_another_cohort_an_edited_file_and_a_missing_run_are_refused(run, tmp_path):
    folder = tmp_path / "llama"
    write_predictions(folder, run)
    provenance.write_json(tmp_path / "other.parquet", "another cohort", "03-cohort")
    with pytest.raises(StudyError, match="run llama was made on another cohort"):
        read_predictions(folder, tmp_path / "other.parquet")
    write_json(folder / "run.json", read_json(folder / "run.json") | {"predictions": "0" * 16})
    with pytest.raises(StudyError, match=r"predictions\.npz is missing or not the file"):
        read_predictions(folder)
    with pytest.raises(StudyError, match=r"run\.json is missing"):
        read_predictions(tmp_path / "bert")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"logits": np.zeros((3, 3), np.float32)}, "do not fit"),
        ({"truth": np.array([0, 1])}, "do not fit"),
        ({"truth": np.array([0, 1, 2])}, "outside"),
        ({"logits": np.array([[np.nan, 0]] * 3, np.float32)}, "diverged"),
        ({"labels": np.array(["291", "001"])}, "ascending"),
        ({"stay_ids": np.array([1, 1, 2])}, "unique"),
    ],
)
def test_what_does_not_fit_is_refused(run, change, says):
    with pytest.raises(StudyError, match=f"run llama.*{says}"):
        dataclasses.replace(run, **change)
