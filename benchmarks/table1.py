"""Table 1 complete (six metrics, four DRG sets, resampled) on made-up logits: this study beside scikit-learn, in one run.

The plain alternative calls scikit-learn once for each resample, and for the macro-AUC once for each label. That takes
twenty minutes at the paper's size, so only one resample of each DRG set is timed. It must equal ours to 1e-12.

    python benchmarks/table1.py [--stays 26244] [--drgs 738] [--resamples 30 1000] [--json FILE]
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import f1_score, roc_auc_score, top_k_accuracy_score

from drgstudy import results
from drgstudy.bootstrap import bootstrap, resample_counts
from drgstudy.metrics import METRICS, TOP, Scores
from drgstudy.study import peak_memory_gb, progress, write_json

SEED = 42


def made_up(stays: int, drgs: int) -> tuple[np.ndarray, np.ndarray, dict]:
    """Float32 logits, truth and DRG sets, with frequencies and accuracy much like the paper's, and with many ties."""
    rng = np.random.default_rng(SEED)
    frequency = 1 / (np.arange(drgs) + 105) ** 2.2  # the top 300, 50 and 30 of 738 hold 87, 41 and 28 % of the stays
    frequency /= frequency.sum()
    truth = rng.choice(drgs, stays, p=frequency)
    logits = rng.standard_normal((stays, drgs), np.float32) + np.log(frequency).astype(np.float32) / 2
    logits[np.arange(stays), truth] += rng.normal(3.1, 0.7, stays).astype(np.float32)
    logits = logits.round(2)
    logits[: stays // 20] = logits[-(stays // 20) :]  # the same note, another DRG
    codes = np.array([f"{code:03}" for code in range(drgs)])
    return logits, truth, results.drg_sets(codes, pd.Series(codes[truth]).value_counts(), results.TOP_DRGS)


def ours(stays: int, drgs: int, resamples: int) -> dict:
    """Seconds and peak memory (GB) of Table 1 from logits in memory, and the first resample of each DRG set."""
    logits, truth, sets = made_up(stays, drgs)
    start = time.perf_counter()
    scores = Scores(logits, truth)
    results.table1({"llama": scores}, sets, resamples, resamples, SEED)
    seconds, peak = time.perf_counter() - start, peak_memory_gb()
    first = {name: bootstrap(scores, 1, SEED, labels).loc[0].to_numpy() for name, labels in sets.items()}
    return {"seconds": seconds, "peak": peak, "first": first}


def plain(logits: np.ndarray, truth: np.ndarray) -> list[float]:
    """The `METRICS` of the stays by scikit-learn, in their order."""
    labels, present = np.arange(logits.shape[1]), np.unique(truth)
    p = softmax(logits.astype(np.float64), axis=1)
    return [
        f1_score(truth, logits.argmax(axis=1), labels=present, average="macro", zero_division=0),
        *(top_k_accuracy_score(truth, logits, k=k, labels=labels) for k in TOP),
        np.mean([roc_auc_score(truth == label, p[:, label]) for label in present]),
        roc_auc_score((truth[:, None] == labels).ravel(), p.ravel()),
    ]


def main() -> None:
    """Time both, check that they agree, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stays", type=int, default=26244)
    parser.add_argument("--drgs", type=int, default=738)
    parser.add_argument("--resamples", type=int, nargs=2, default=[30, 1000], help="few, many")
    parser.add_argument("--json", type=Path, help="write the measurements here")
    chosen = parser.parse_args()
    few, many = chosen.resamples

    alone = multiprocessing.get_context("spawn")  # a fresh process each, whose peak memory is its own
    results = {}
    for resamples in chosen.resamples:
        with ProcessPoolExecutor(1, mp_context=alone) as pool:
            results[resamples] = pool.submit(ours, chosen.stays, chosen.drgs, resamples).result()
    logits, truth, sets = made_up(chosen.stays, chosen.drgs)
    drawn = np.repeat(np.arange(chosen.stays), resample_counts(chosen.stays, 1, SEED)[0])
    seconds = {}
    for name, labels in progress(sets.items(), desc="scikit-learn"):
        kept = drawn[np.isin(truth[drawn], labels)]
        start = time.perf_counter()
        values = plain(logits[kept], truth[kept])
        seconds[name] = time.perf_counter() - start
        for result in results.values():
            np.testing.assert_allclose(result["first"][name], values, rtol=0, atol=1e-12, err_msg=f"{name}: {METRICS}")

    about = {
        "data": f"{chosen.stays:,} stays × {chosen.drgs} DRGs",
        "equal": "to 1e-12: the first resample of each set",
    }
    timed = "; ".join(f"{name} {t:.1f} s" for name, t in seconds.items())
    measured = []
    for resamples, goal, at_most, times in (few, "at most 5 s; 80 times", 5, 80), (many, "at most 60 s", 60, 0):
        taken, scaled = results[resamples]["seconds"], sum(seconds.values()) * (resamples + 1)
        measured.append(
            about
            | {
                "name": f"Table 1, {resamples:,} resamples",
                "unit": "s",
                "ours": taken,
                "plain": scaled,
                "plain_is": "scikit-learn, one label at a time",
                "ratio": scaled / taken,
                "goal": goal,
                "met": taken <= at_most and scaled / taken >= times,
                "note": f"plain: one resample of each DRG set ({timed}), times {resamples:,} and the table's own values",
            }
        )
    peak = {"name": f"Memory of those {many:,} resamples", "unit": "GB", "ours": results[many]["peak"], "plain": None}
    peak |= {"plain_is": "", "ratio": None, "goal": "at most 2 GB", "met": results[many]["peak"] <= 2, "equal": ""}
    measured.append(about | peak | {"note": "peak of the whole process, Python and the logits included"})
    print(
        pd.DataFrame(measured)[["name", "data", "ours", "plain", "unit", "ratio", "goal", "met"]].to_string(index=False)
    )
    if chosen.json:
        write_json(chosen.json, measured)


if __name__ == "__main__":
    with warnings.catch_warnings(action="ignore"):  # of scikit-learn, where k is no less than the number of labels
        main()
