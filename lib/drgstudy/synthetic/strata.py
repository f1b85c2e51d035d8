"""Kinds of notes that call for reading in different ways, and how well models do on each."""

from __future__ import annotations

import re

import pandas as pd

from drgstudy.metrics import share


def strata(truth: pd.DataFrame, texts: pd.Series, train: pd.Series) -> pd.DataFrame:
    """Which notes call for reading, and how: one column (bool) for each stratum; a note may be in several.

    Parameters
    ----------
    truth : DataFrame
        As `read_truth`.
    texts, train : Series of str
        The hospital courses of the same stays, by hadm_id, and those of the training stays.

    Notes
    -----
    Source: ours.
    """
    truth, known = truth.loc[texts.index], _plain("\n".join(train))
    lured = truth["lures"].str.split()
    kinds = {
        "denied or doubted diseases": {"negated", "uncertain", "ruled_out", "rival"},
        "past diseases or operations": {"past", "surgical_history", "history"},
    }
    names = set(";".join(truth["named"]).split(";"))
    unknown = {name for name in names if not re.search(rf"(?<!\w){re.escape(_plain(name))}(?!\w)", known)}
    found = {
        "a competing problem instead of the reason": truth["told"] == "instead",
        "a competing problem at greater length": truth["told"] == "at length",
        **{name: lured.map(lambda lures, some=some: not some.isdisjoint(lures)) for name, some in kinds.items()},
        "the reason is not named": truth["named"] == "",
        "the reason in words that training has not": truth["named"].map(
            lambda names: names != "" and unknown.issuperset(names.split(";"))
        ),
    }
    table = pd.DataFrame(found)
    return table.assign(**{"none of these": ~table.any(axis=1)})


def _plain(text: str) -> str:
    """Lower case, and without the line breaks of a note, which may follow a hyphen."""
    return re.sub(r"\s+", " ", re.sub(r"-\s+", "-", text)).lower()


def by_stratum(strata: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """The accuracy of each model in each stratum, and how much better than the first model each other one is.

    Parameters
    ----------
    strata : DataFrame of bool
        From `strata`.
    right : DataFrame of bool
        For the same stays, a column for each run: whether its first guess is right.

    Returns
    -------
    DataFrame
        stratum, stays, run, then value, lower, upper (95 % Wilson intervals) and difference, difference_lower,
        difference_upper (95 % paired intervals; missing for the first run).
    """
    rows = []
    for stratum in ["all", *strata]:
        some = right if stratum == "all" else right[strata[stratum].to_numpy()]
        for run in some if len(some) else ():
            row = {"stratum": stratum, "stays": len(some), "run": run, **share(some[run].to_numpy())}
            if run != right.columns[0]:
                gain = some[run].astype(float) - some[right.columns[0]]
                reach = 1.96 * gain.std(ddof=0) / len(gain) ** 0.5
                row |= {"difference": gain.mean()}
                row |= {"difference_lower": gain.mean() - reach, "difference_upper": gain.mean() + reach}
            rows.append(row)
    return pd.DataFrame(rows)
