"""What changes from year to year: the case mix, what harmonization leaves out, and how well a model does."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import kruskal, mannwhitneyu, random_table
from statsmodels.stats.proportion import proportion_confint

from drgstudy import disclosure
from drgstudy.cohort import is_ms_drg
from drgstudy.harmonize import standard_code

LEAST = 5  # stays of a DRG whose years are compared with those of others


def mix_by_year(drg: pd.Series, year: pd.Series, draws: int, seed: int) -> tuple[pd.DataFrame, float]:
    """How far the case mix of each year is from that of all years, and whether the DRGs differ in when they come.

    Parameters
    ----------
    drg, year : Series, shape (n,)
        Of stays of different patients: stays of one patient are alike and near in time.
    draws : int
        Tables drawn with the same numbers of stays by DRG and by year, in which neither depends on the other.
    seed : int

    Returns
    -------
    DataFrame
        By year: distance (total variation: the share of the stays that would need another DRG), and by_chance, below
        which 95 % of the draws lie. Few stays make any year look far off.
    p : float
        Of the Kruskal–Wallis test of the year between the DRGs that have at least `LEAST` stays; 1 if they are not two.
        It finds trends, which the distances of single years may hide.

    Notes
    -----
    Source: Patefield 1981 (drawing the tables); Kruskal and Wallis 1952 (p).
    """
    counts = pd.crosstab(drg, year)
    of_drg, of_year = counts.sum(axis=1).to_numpy(), counts.sum().to_numpy()

    def distance(tables: np.ndarray) -> np.ndarray:
        return np.abs(tables / of_year - of_drg[:, None] / of_drg.sum()).sum(axis=-2) / 2  # (..., years)

    drawn = random_table.rvs(of_drg, of_year, size=draws, random_state=np.random.default_rng(seed))
    chance = np.quantile(distance(drawn), 0.95, axis=0)
    groups = [when for _, when in year.groupby(drg) if len(when) >= LEAST]
    p = kruskal(*groups).pvalue if len(groups) > 1 else 1.0
    return pd.DataFrame({"distance": distance(counts.to_numpy()), "by_chance": chance}, counts.columns), float(p)


def left_out_by_year(
    drgcodes: pd.DataFrame, mapping: pd.DataFrame, year: pd.Series, mask_below: int = 0
) -> pd.DataFrame:
    """How many billed MS-DRGs of each year have no DRG in version 34.

    Parameters
    ----------
    drgcodes, mapping : DataFrame
        As for `cohort.build_cohort`.
    year : Series of int
        By hadm_id. Rows of stays without a year are not counted.
    mask_below : int

    Returns
    -------
    DataFrame
        By year: value (the share that is left out), lower and upper (95 % Wilson interval); NaN where small counts
        would follow.
    """
    rows = drgcodes[is_ms_drg(drgcodes)]
    rows = rows.assign(code=standard_code(rows["drg_code"]), title=rows["description"].astype("str"))
    rows = rows.merge(mapping[["code", "title", "drg_v34"]], "left", on=["code", "title"], validate="m:1")
    return by_year(rows["drg_v34"].isna(), rows["hadm_id"].map(year), mask_below)


def by_year(hits: pd.Series, year: pd.Series, mask_below: int = 0, sums=()) -> pd.DataFrame:
    """The share of stays of each year that are hits (bool); columns as `left_out_by_year` returns them.

    `sums` has sets of years, such as the later ones, of which it is told elsewhere how many stays are hits.
    """
    counts = hits.groupby(year).agg(["sum", "size"])
    counts.index = counts.index.astype(int)
    hit, n = counts["sum"].astype("int64"), counts["size"]
    known = [np.ones(len(n), bool), *(n.index.isin(some) for some in sums)]
    hide = disclosure.withheld(hit, mask_below, known) | disclosure.withheld(n - hit, mask_below, known)
    lower, upper = proportion_confint(hit, n, method="wilson")
    return pd.DataFrame({"value": hit / n, "lower": lower, "upper": upper}).mask(pd.Series(hide, n.index))


def told_apart(score: np.ndarray, late: np.ndarray) -> tuple[float, float]:
    """How well a classifier's `score` (float, shape (n,)) tells the later stays (bool) from the early ones.

    Returns
    -------
    auc : float
        0.5 if the years do not differ in what was scored.
    p : float
        One-sided, of Mann and Whitney's test.

    Notes
    -----
    Source: Lopez-Paz and Oquab 2017 (a classifier as a test of two samples).
    """
    test = mannwhitneyu(score[late], score[~late], alternative="greater")
    return float(test.statistic / late.sum() / (~late).sum()), float(test.pvalue)


def sentences(compared: pd.DataFrame, apart: tuple[float, float], mix: pd.DataFrame, p: float) -> list[str]:
    """What came out, in sentences.

    `compared` is from `comparisons.differences`, of one set of training stays against others; `apart` from `told_apart`;
    `mix` and `p` from `mix_by_year`.
    """
    auc, certain = apart
    words = f"Later notes {'can' if certain < 0.05 else 'can’t'} be told from early ones by their words"
    verdict = "changes with the years" if p < 0.05 else "changes no more than chance would do"
    far = mix.index[mix["distance"] > mix["by_chance"]]
    listed = f"; farther from all years’ than chance: {', '.join(map(str, far))}" if len(far) else ""
    said = compared.loc[compared["metric"] == "acc_at_1", "sentence"]
    return [
        *said,
        f"{words} (AUC {auc:.2f}, {_in_print(certain)}).",
        f"The case mix {verdict} ({_in_print(p)}{listed}).",
    ]


def _in_print(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"
