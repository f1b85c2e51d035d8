"""What changes from year to year: the case mix, what harmonization leaves out, and how well a model does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kruskal, mannwhitneyu, random_table
from scipy.stats import t as student
from statsmodels.stats.proportion import proportion_confint

from drgstudy import disclosure
from drgstudy.cohort import is_ms_drg
from drgstudy.harmonize import standard_code
from drgstudy.models import tfidf
from drgstudy.predictions import Predictions
from drgstudy.study import StudyError
from drgstudy.tables import signed

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


def tfidf_says(
    train: pd.Series, y: np.ndarray, outputs: list[str], test: pd.Series, seed: int, folder: Path, features: int = 0
) -> np.ndarray:
    """The logits that TF-IDF gives to `test` texts after training on `train` texts: float32, shape (test, outputs).

    Nothing of the model is kept.

    Parameters
    ----------
    train, test : Series of str
    y : array of int, shape (train,)
        Positions in `outputs`.
    outputs : list of str
        What each output stands for.
    seed : int
    folder : Path
        Where the model may lie meanwhile, for it has learned from notes.
    features : int
        As the setting of `models.tfidf`: 0 is the model of Table 1, and hashed terms make a training take seconds.
    """
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        model = tfidf.Model(tfidf.Settings(features=features), outputs, Path(beside), seed)
        model.fit(train.tolist(), y)
        return model.predict(test.tolist())


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


def gain(early: np.ndarray, drawn: np.ndarray, mask_below: int = 0) -> pd.Series:
    """How much better models do that were trained on draws from all years than one that was trained on the early years.

    If time did not matter, the early stays would be one more such draw. So the interval allows for other test stays and
    for the scatter of the trainings, which on few training stays is the larger of the two.

    Parameters
    ----------
    early : numpy.ndarray of bool, shape (n,)
        Which test stays the model of the early years names right.
    drawn : numpy.ndarray of bool, shape (trainings, n)
        The same of each model of a draw, each on as many training stays. Of a single one no scatter is known, and the
        interval allows for other test stays alone.
    mask_below : int

    Returns
    -------
    Series
        early and all (shares that are right, of all models of draws the mean), difference (all minus early), lower, upper
        (95 % interval) and p; NaN where the numbers of some model would tell that few stays are right, or few wrong.

    Notes
    -----
    Source: ours; the interval is that of a new observation, Student's with as many degrees of freedom as the scatter has.
    """
    trainings, n = drawn.shape
    names = ["early", "all", "difference", "lower", "upper", "p"]
    if any(disclosure.tells_of_few(each.sum(), n, mask_below) for each in (early, *drawn)):
        return pd.Series(np.nan, names)
    apart = drawn.mean(axis=0) - early
    scatter = drawn.mean(axis=1).var(ddof=1) * (1 + 1 / trainings) if trainings > 1 else 0.0
    error, law = np.sqrt(apart.var(ddof=1) / n + scatter), student(trainings - 1 or np.inf)
    reach = law.ppf(0.975) * error
    p = 2 * law.sf(abs(apart.mean()) / error) if error else 1.0
    return pd.Series([early.mean(), drawn.mean(), apart.mean(), apart.mean() - reach, apart.mean() + reach, p], names)


def gain_of_runs(
    early: Predictions, as_many: Predictions, until: int, later: pd.Series, mask_below: int = 0
) -> pd.Series:
    """`gain` of two runs of notebook 05, alike but for their training stays.

    Parameters
    ----------
    early, as_many : Predictions
        Trained on the stays up to the year `until`, and on as many of all years.
    later : Series of int
        The ids of the test stays that are later than that year.

    Raises
    ------
    StudyError
        If they are no such pair.
    """
    keys = [made.run.get("key", {}) for made in (early, as_many)]
    apart = {name for name in keys[0] | keys[1] if keys[0].get(name) != keys[1].get(name)} - {"code"}
    if apart != {"as_many", "stays"} or keys[0].get("until") != until or keys[0]["as_many"]:
        raise StudyError(
            f"runs {early.run['run']!r} and {as_many.run['run']!r}: expected two trainings with until: {until} that are alike, "
            "but for as_many: true of the second"
        )
    late = np.isin(early.stay_ids, later)
    right = np.array([made.logits.argmax(axis=1) == made.truth for made in (early, as_many)])
    gained = gain(right[0, late], right[1:, late], mask_below)
    # Of how many of all test stays a run names right it is told elsewhere, and so the earlier ones must not be few.
    told = disclosure.tells_of_few(right[:, ~late].sum(axis=1), (~late).sum(), mask_below).any()
    return gained * np.nan if told else gained


def sentences(gains: dict[str, pd.Series], apart: tuple[float, float], mix: pd.DataFrame, p: float) -> list[str]:
    """What came out, in sentences, from `gain` by the model's name, `told_apart` and `mix_by_year`."""
    auc, certain = apart
    words = f"Later notes {'can' if certain < 0.05 else 'can’t'} be told from early ones by their words"
    verdict = "changes with the years" if p < 0.05 else "changes no more than by chance"
    far = mix.index[mix["distance"] > mix["by_chance"]]
    listed = f"; farther from that of all years than chance puts it: {', '.join(map(str, far))}" if len(far) else ""
    return [
        *(_cost(*item) for item in gains.items()),
        f"{words} (AUC {auc:.2f}, {_in_print(certain)}).",
        f"The case mix {verdict} ({_in_print(p)}{listed}).",
    ]


def _cost(name: str, gained: pd.Series) -> str:
    if gained["difference"] != gained["difference"]:
        return f"What it costs {name} to have learned from the early years is not shown: small counts would follow from it."
    verdict = "it can’t be told whether training on the early years costs anything"
    if not gained["lower"] <= 0 <= gained["upper"]:
        verdict = "the early years cost accuracy" if gained["difference"] > 0 else "the early years are even better"
    value, lower, upper = (signed(100 * gained[end], 1) for end in ("difference", "lower", "upper"))
    return (
        f"Trained on the early years, {name} names {100 * gained['early']:.1f} % of the later stays right; trained on as many "
        f"stays of all years, {100 * gained['all']:.1f} %: {verdict} ({value} points, 95 % interval {lower} to {upper})."
    )


def _in_print(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"
