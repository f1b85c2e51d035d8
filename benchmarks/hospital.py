"""What the hospital's dials are set by: how often its notes repeat one another, and what words tell of a DRG's two parts.

    python benchmarks/hospital.py [--profile NAME] [--notes FILE] [--words N] [--rounds N]

No language model is asked. *Recurrence*: in each round some courses are drawn and dealt into two halves of so many words
each; printed is the mean share of the running n-grams of one half that the other half has too. Real notes are MTSamples'
transcriptions, which come from many hospitals. Words are lower-cased runs of letters and digits; no n-gram goes beyond
its course. *Parts*: the accuracy on the test stays of TF-IDF, trained once on the base DRG and once on the CC/MCC label,
beside what the grouper makes of the documented codes and the published figures of LLaMA-7B's two-label model. *Intensive
care*: the macro-AUC over the held-out stays' DRGs of a regression on the first 48 hours' notes (TF-IDF) and of one on the
measurements (mean, last, lowest and highest value of each group), beside the published ones of CAML and LSTM.
"""

import argparse
import csv
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from drgstudy import cohort, drgs, icu_cohort, runs
from drgstudy.flow import read_rows
from drgstudy.models import tfidf
from drgstudy.notes import hospital_course
from drgstudy.study import REFERENCE, ROOT, Paths, read_json
from drgstudy.synthetic import hardness
from drgstudy.synthetic.tables import Hospital

NOTES = ROOT.parent / "shared" / "open-data" / "mtsamples_hospital_course_half.csv"
SIZES = (1, 2, 3, 5)
PUBLISHED = {"drg": 0.520, "base": 0.678, "cc_label": 0.675}  # DRG-LLaMA-7B, Tables 1 and 3


def ngrams(texts: list[str], size: int) -> list[tuple[str, ...]]:
    """The running n-grams of all texts."""
    words = [re.findall("[a-z0-9]+", text.lower()) for text in texts]
    return [gram for row in words for gram in zip(*(row[at:] for at in range(size)), strict=False)]


def halves(texts: list[str], words: int, rng: np.random.Generator) -> list[list[str]]:
    """Two sets of texts without one in common, each of so many words, or as near as whole texts come to it."""
    dealt, left = [], [texts[at] for at in rng.permutation(len(texts))]
    for _ in range(2):
        half, n = [], 0
        while left and n < words:
            half.append(left.pop())
            n += len(half[-1].split())
        dealt.append(half)
    return dealt


def recurrence(texts: list[str], words: int, rounds: int, seed: int = 0) -> list[float]:
    """The mean share of one half's running n-grams that the other half has, for each of `SIZES`."""
    rng, shares = np.random.default_rng(seed), []
    for _ in range(rounds):
        one, other = halves(texts, words, rng)
        shares.append(
            [np.mean([gram in known for gram in ngrams(other, n)]) for n in SIZES for known in [set(ngrams(one, n))]]
        )
    return np.mean(shares, 0).tolist()


def parts(paths: Paths) -> pd.DataFrame:
    """Accuracy on the test stays, for the DRG and each of its parts: of TF-IDF, and of the grouped documentation."""
    train, test = cohort.parts(read_rows(paths.stays, cohort.STAYS), "split")
    hospital = Hospital(read_json(paths.raw / "hospital.json")["tail"])
    truth = hardness.read_truth(paths.raw).loc[test["stay_id"]]
    documented = hardness.in_v34(hospital, truth, "drg_documented").fillna("")
    known = drgs.v34()
    rows = {}
    for name in PUBLISHED:
        of = {code: code if name == "drg" else str(known.loc[code, name]) for code in known.index}
        labels = sorted(set(map(of.get, train["drg_v34"])))
        with tempfile.TemporaryDirectory() as folder:
            model = tfidf.Model(tfidf.Settings(), labels, Path(folder), 0)
            model.fit(train["text"].tolist(), np.array([labels.index(of[code]) for code in train["drg_v34"]]))
            said = np.array(labels)[model.predict(test["text"].tolist()).argmax(1)]
        true = np.array([of[code] for code in test["drg_v34"]])
        grouped = np.array([of.get(code, "") for code in documented])
        rows[name] = {
            "TF-IDF": np.mean(said == true),
            "grouped documentation": np.mean(grouped == true),
            "published": PUBLISHED[name],
        }
    return pd.DataFrame(rows)


def intensive_care(paths: Paths) -> pd.DataFrame:
    """Macro-AUC on the hold-out stays, for each DRG system: what notes tell, and what measurements tell."""
    rows = {}
    for system in drgs.SYSTEMS:
        stays = read_rows(paths.cohort(system), icu_cohort.STAYS)
        test, drg = (stays["fold"] == 0).to_numpy(), stays["drg"].to_numpy()
        models = {
            "notes": make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=30, max_iter=600)),
            "measurements": make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=600)),
        }
        rows[system] = {}
        for reads, model in models.items():
            known = runs.known_at(paths, stays, reads, 48)
            train, asked = known(~test, 48, ~test), known(test, 48, ~test)
            if reads == "measurements":  # (stays, hours, variables)
                train, asked = (np.hstack([x.mean(1), x[:, -1], x.min(1), x.max(1)]) for x in (train, asked))
            logits = model.fit(train, drg[~test]).decision_function(asked)
            there = [(k, drg[test] == code) for k, code in enumerate(model.classes_) if (drg[test] == code).any()]
            rows[system][reads] = np.mean([roc_auc_score(true, logits[:, k]) for k, true in there])
    table = pd.read_csv(REFERENCE / "published_early.csv").query("drg_set == 'All DRGs' and metric == 'macro_auc'")
    published = table.pivot(index="model", columns="system", values="value").loc[["CAML", "LSTM"]]
    return pd.concat([pd.DataFrame(rows), published.rename(index="published: {}".format)])


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--notes", type=Path, default=NOTES)
    parser.add_argument("--words", type=int, default=5800)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    paths = Paths(asked.profile)
    with open(asked.notes, encoding="utf-8", newline="") as file:
        found = [hospital_course(row["transcription"]) for row in csv.DictReader(file)]
    made = pd.read_parquet(paths.stays, columns=["text"])["text"].tolist()
    rows = {
        name: recurrence(texts, asked.words, asked.rounds)
        for name, texts in (("real", [text for text in found if text]), (asked.profile, made))
    }
    table = pd.DataFrame(rows, index=pd.Index([f"{n} words" for n in SIZES])).T
    table.loc["ratio"] = table.loc[asked.profile] / table.loc["real"]
    print(table.round(3).to_string(), parts(paths).round(3).to_string(), sep="\n\n")
    print(f"\n{intensive_care(Paths(asked.profile, 'early')).round(3).to_string()}")


if __name__ == "__main__":
    main()
