"""How many stays does each published rule move? Both cohorts by ours, by one published rule at a time, and by all.

    python benchmarks/rules.py HOSPITAL [--icu ICU] [--share 0.1]

HOSPITAL and ICU are folders in the shape of MIMIC-IV (with its notes) and of MIMIC-III. Only counts are printed.
A small hospital needs a larger share of test stays, for scikit-learn wants one of each DRG.
"""

import argparse
from functools import partial
from pathlib import Path

import pandas as pd

from drgstudy import cohort, drgs, harmonize, icu_cohort, mimic
from drgstudy.flow import RULES
from drgstudy.study import run_and_exit

ALONE = {"hospital course": 0, "titles": 1, "joins and split": 2}


def against(ours: pd.DataFrame, theirs: pd.DataFrame, **columns: str) -> dict:
    """Rows that only one of two cohorts has, and how many of the common stays differ in some columns, by heading."""
    ours, theirs = (stays.drop_duplicates("stay_id").set_index("stay_id") for stays in (ours, theirs))
    both = ours.index.intersection(theirs.index)
    counts = {"stays": len(theirs), "left out": len(ours) - len(both), "added": len(theirs) - len(both)}
    return counts | {
        what: int((ours.loc[both, name] != theirs.loc[both, name]).sum()) for what, name in columns.items()
    }


def discharges(folder: Path, share: float) -> pd.DataFrame:
    """DRG-LLaMA's cohort; its words are at least 40, or more than 40 where the rule about them is the published one."""
    rows = mimic.read(folder, "drgcodes", cohort.DRG_COLUMNS)
    mapping = {rules: harmonize.harmonize(rows[cohort.is_ms_drg(rows)], rules=rules) for rules in RULES}
    courses = {rules: list(map(partial(cohort.extract, rules=rules), mimic.notes(folder))) for rules in RULES}

    def built(found: str, titled: str, joined: str, words: int) -> pd.DataFrame:
        return cohort.build_cohort(
            courses[found], rows, mapping[titled], min_words=words, test_share=share, rules=joined
        )[0]

    ours = built("ours", "ours", "ours", 40)
    tried = {"ours": ours, "more than 40 words": built("ours", "ours", "ours", 41)}
    for name, place in ALONE.items():
        tried[name] = built(*("published" if place == i else "ours" for i in range(3)), 40)
    tried["all"] = built(*["published"] * 3, 41)
    return pd.DataFrame(
        {
            name: against(ours, stays, **{"other text": "text", "other DRG": "drg_v34", "other part": "split"})
            | {"mean words": round(stays["words"].mean(), 1)}
            for name, stays in tried.items()
        }
    ).T


def icu(folder: Path) -> pd.DataFrame:
    """The early-DRG cohorts, by all of the rules at once."""
    raw, made = icu_cohort.read_tables(folder), {}
    for rules in RULES:
        candidates = pd.concat([icu_cohort.build(raw, system, rules=rules)[0] for system in drgs.SYSTEMS])
        notes = icu_cohort.read_notes(folder, candidates, rules=rules)
        text = notes.groupby("stay_id")["text"].agg("\n".join)
        for system in drgs.SYSTEMS:
            stays, _ = icu_cohort.build(raw, system, notes, rules=rules)
            made[system, rules] = stays.assign(text=stays["stay_id"].map(text))
            made[system, rules]["words"] = made[system, rules]["text"].str.split().str.len()
    columns = {"other text": "text", "other DRG": "drg", "other visit of a patient": "first_visit"}
    return pd.DataFrame(
        {
            (name, rules): against(made[system, "ours"], made[system, rules], **columns)
            | {"mean words": round(made[system, rules]["words"].mean(), 1)}
            for system, name in drgs.SYSTEMS.items()
            for rules in RULES
        }
    ).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("hospital", type=Path)
    parser.add_argument("--icu", type=Path)
    parser.add_argument("--share", type=float, default=0.1, help="of the test stays")
    given = parser.parse_args()
    print(discharges(given.hospital, given.share).to_string(), "\n")
    if given.icu:
        print(icu(given.icu).to_string())


if __name__ == "__main__":
    run_and_exit(main)
