"""Who is served worse: how a model does on groups of patients, as they are and within DRGs.

Groups differ in what they are ill with, and some illnesses are harder to name. Within DRGs, stays of a group are
compared with stays of the same DRG alone, so that what is left is not a matter of the case mix.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests

from drgstudy import disclosure
from drgstudy.bootstrap import resample_counts
from drgstudy.calibration import calibration, chance_error
from drgstudy.people import CHARACTERISTICS, UNKNOWN
from drgstudy.tables import by_index, p_values, signed, with_interval

OUTCOMES = {
    "accuracy": ("accuracy", "points"),
    "overconfidence": ("overconfidence", "points"),
    "dollars": ("payment error of a stay", "dollars"),
}
"""What is compared, in words, and its unit. Each is a number of a stay, as `outcomes` has it."""
ALPHA = 0.05
FEWEST = 10  # patients on either side of a comparison: the spread of fewer can't be known


def outcomes(confidence: np.ndarray, hit: np.ndarray, dollars: np.ndarray) -> pd.DataFrame:
    """The `OUTCOMES` of each stay; their means are a group's accuracy, overconfidence and signed payment error.

    Parameters
    ----------
    confidence, hit : numpy.ndarray, shape (n,)
        As `calibration.top1` returns them.
    dollars : numpy.ndarray of float, shape (n,)
        Predicted minus true payment.
    """
    table = {"accuracy": 100.0 * hit, "overconfidence": 100 * (confidence - hit), "dollars": dollars}
    return pd.DataFrame(table)


def shown_groups(labels: pd.DataFrame, hit: np.ndarray, mask_below: int) -> pd.DataFrame:
    """Stays of each group of each characteristic, the largest group first, and whether the group may be shown.

    A group is not shown if few of its stays are there, right or wrong, nor if such a number would follow from the others.

    Parameters
    ----------
    labels : DataFrame of str, shape (n, characteristics)
    hit : numpy.ndarray of bool, shape (n,)
    mask_below : int

    Returns
    -------
    DataFrame
        characteristic, group, stays, shown.
    """
    parts = []
    for name, of in labels.items():
        counts = pd.DataFrame({"stays": 1, "right": hit, "wrong": ~hit}).groupby(of.to_numpy()).sum().astype("int64")
        hide = [disclosure.withheld(counts[each], mask_below, [np.ones(len(counts), bool)]) for each in counts]
        counts = counts.assign(shown=~np.any(hide, axis=0)).sort_values("stays", ascending=False, kind="stable")
        parts.append(counts.rename_axis("group").reset_index().assign(characteristic=name))
    return pd.concat(parts, ignore_index=True)[["characteristic", "group", "stays", "shown"]]


def by_group(
    groups: pd.DataFrame,
    labels: pd.DataFrame,
    table: pd.DataFrame,
    confidence: np.ndarray,
    bins: int,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Each group's accuracy, overconfidence, calibration error and payment error, with 95 % intervals.

    Parameters
    ----------
    groups : DataFrame
        As `shown_groups` returns them; those that are not shown have no numbers.
    labels : DataFrame of str
        As for `shown_groups`.
    table : DataFrame
        The stays' `outcomes`.
    confidence : numpy.ndarray of float, shape (n,)
    bins : int
        Of the calibration error; a small group has fewer, of ten stays or more.
    resamples, seed : int
        Resamples of each group's stays.

    Returns
    -------
    DataFrame
        characteristic, group, stays, measure, value, lower, upper. The measures are those of `OUTCOMES`, ece, and
        ece_by_chance, of which only the upper limit is told: it grows as a group shrinks.
    """
    rows = []
    for group in groups[groups["shown"]].itertuples():
        among = (labels[group.characteristic] == group.group).to_numpy()
        n, its = int(among.sum()), confidence[among]
        hit, few = table.loc[among, "accuracy"].to_numpy() > 0, max(1, min(bins, n // 10))
        counts = resample_counts(n, resamples, seed)
        found = calibration(its, hit, few, counts).loc[
            ["accuracy", "overconfidence", "ece"], ["value", "lower", "upper"]
        ]
        found.loc[["accuracy", "overconfidence"]] *= 100
        drawn = counts @ table.loc[among, "dollars"].to_numpy() / n
        found.loc["dollars"] = [table.loc[among, "dollars"].mean(), *np.quantile(drawn, [0.025, 0.975])]
        chance = chance_error(its, few, resamples, seed)
        found.loc["ece_by_chance"] = [chance.mean(), np.nan, np.quantile(chance, 0.95)]
        about = {"characteristic": group.characteristic, "group": group.group, "stays": n}
        rows.append(found.rename_axis("measure").reset_index().assign(**about))
    columns = ["characteristic", "group", "stays", "measure", "value", "lower", "upper"]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def difference(values: np.ndarray, member: np.ndarray, strata: np.ndarray, patients: np.ndarray) -> pd.DataFrame:
    """Mean of the members' values minus that of the others, within strata.

    The difference in each stratum counts with the Mantel–Haenszel weight m·o / (m + o), of m members and o others: a
    stratum without one or the other says nothing. The same number is the coefficient of membership in a regression with
    a constant for each stratum; its standard error allows for patients with several stays.

    Parameters
    ----------
    values : numpy.ndarray of float, shape (n, outcomes)
    member : numpy.ndarray of bool, shape (n,)
    strata, patients : numpy.ndarray of int, shape (n,)
        Numbers from 0 on.

    Returns
    -------
    DataFrame, one row for each outcome
        value, lower, upper (95 % interval) and p (two-sided); NaN if fewer than `FEWEST` patients of one kind share a
        stratum with the other. The t distribution has one degree of freedom less than the smaller side has patients,
        for a standard error from few patients is uncertain.

    Notes
    -----
    Source: Mantel and Haenszel 1959; Cochran 1954 (weights for differences); Liang and Zeger 1986 (standard error).
    """
    size = np.bincount(strata)

    def centred(of: np.ndarray) -> np.ndarray:
        return of - (np.bincount(strata, of) / np.maximum(size, 1))[strata]

    x, y = centred(member.astype(float)), np.column_stack([centred(column) for column in values.T])
    total, informs = (x**2).sum(), np.abs(x) > 1e-12
    fewer = min(len(np.unique(patients[informs & (member == side)])) for side in (True, False))
    if fewer < FEWEST:
        return pd.DataFrame(np.nan, range(values.shape[1]), ["value", "lower", "upper", "p"])
    value = x @ y / total
    score = x[:, None] * (y - x[:, None] * value)
    of_patients = np.column_stack([np.bincount(patients, column) for column in score.T])
    error = np.sqrt((of_patients**2).sum(axis=0) * fewer / (fewer - 1)) / total
    reach = student.ppf(1 - ALPHA / 2, fewer - 1) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * student.sf(np.abs(value) / error, fewer - 1)
    return pd.DataFrame({"value": value, "lower": value - reach, "upper": value + reach, "p": p})


def compared(
    groups: pd.DataFrame, labels: pd.DataFrame, table: pd.DataFrame, drg: np.ndarray, patients: np.ndarray
) -> pd.DataFrame:
    """Each group against the largest group of its characteristic: as it is, and within DRGs.

    Parameters
    ----------
    groups, labels, table
        As for `by_group`. Nobody is compared with those of whom a characteristic is not known.
    drg, patients : numpy.ndarray, shape (n,)
        The true DRG and the patient of each stay.

    Returns
    -------
    DataFrame
        characteristic, group, reference, outcome; raw (the difference as it is); within, lower, upper and p (within
        DRGs); p_holm, corrected for all rows by Holm's method. All are NaN where `difference` has none.
    """
    everyone, rows = np.zeros(len(table), int), []
    drg, patients, values = _numbered(drg), _numbered(patients), table.to_numpy()
    for name, first, other in _pairs(groups):
        of = labels[name].to_numpy()
        raw, within = (_against(first, other, of, values, strata, patients) for strata in (everyone, drg))
        about = {
            "characteristic": name,
            "group": other,
            "reference": first,
            "outcome": list(table),
            "raw": raw["value"],
        }
        rows.append(within.rename(columns={"value": "within"}).assign(**about))
    columns = ["characteristic", "group", "reference", "outcome", "raw", "within", "lower", "upper", "p"]
    if not rows:
        return pd.DataFrame(columns=[*columns, "p_holm"])
    found = pd.concat(rows, ignore_index=True)[columns]
    told = found["p"].notna()
    found.loc[told, "p_holm"] = multipletests(found.loc[told, "p"], method="holm")[1]
    return found


def false_alarms(
    groups: pd.DataFrame,
    labels: pd.DataFrame,
    table: pd.DataFrame,
    drg: np.ndarray,
    patients: np.ndarray,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """How often `compared` finds a difference where there is none: each characteristic is dealt out anew among patients.

    Returns
    -------
    DataFrame
        By characteristic: comparisons (of one draw), single (the share of all comparisons with p below 5 %) and any (the
        share of draws in which at least one survives Holm's correction for those of this characteristic).
    """
    rng, values = np.random.default_rng(seed), table.to_numpy()
    _, of_first, patients = np.unique(patients, return_index=True, return_inverse=True)
    drg, rows = _numbered(drg), {}
    for name, of in groups.groupby("characteristic", sort=False):
        owned, pairs = labels[name].to_numpy()[of_first], _pairs(of)
        dealt = (rng.permutation(owned)[patients] for _ in range(draws if pairs else 0))
        p = [pd.concat(_against(*pair, to, values, drg, patients)["p"] for _, *pair in pairs).dropna() for to in dealt]
        if any(map(len, p)):
            survives = [each.min() * len(each) < ALPHA for each in p if len(each)]  # Holm's first step
            single = (pd.concat(p) < ALPHA).mean()
            rows[name] = {"comparisons": max(map(len, p)), "single": single, "any": np.mean(survives)}
    return pd.DataFrame(rows.values(), rows, ["comparisons", "single", "any"]).rename_axis("characteristic")


def _numbered(of: np.ndarray) -> np.ndarray:
    return np.unique(of, return_inverse=True)[1]


def _pairs(groups: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Characteristic, largest group and another one, for all groups that are compared."""
    some = groups[groups["shown"] & (groups["group"] != UNKNOWN)].groupby("characteristic", sort=False)["group"]
    return [(name, of.iloc[0], other) for name, of in some for other in of.iloc[1:]]


def _against(first: str, other: str, of: np.ndarray, values: np.ndarray, strata: np.ndarray, patients: np.ndarray):
    some = (of == first) | (of == other)
    return difference(values[some], of[some] == other, strata[some], patients[some])


def printed(groups: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """`by_group` as it is printed; a dash for each number of a group that is not shown."""
    index = pd.MultiIndex.from_frame(groups[["characteristic", "group"]])
    of = {measure: rows.set_index(["characteristic", "group"]) for measure, rows in found.groupby("measure")}
    forms = {
        "Accuracy (%)": ("accuracy", ".1f"),
        "Overconfidence (points)": ("overconfidence", "+.1f"),
        "Payment error ($ a stay)": ("dollars", "+,.0f"),
        "Calibration error": ("ece", ".3f"),
    }
    cells = {"Stays": groups["stays"].map("{:,}".format).where(groups["shown"]).set_axis(index)}
    for heading, (measure, form) in forms.items():
        cells[heading] = by_index(of[measure], form) if of else None
    cells["By chance, at most"] = of["ece_by_chance"]["upper"].map("{:.3f}".format) if of else None
    table = pd.DataFrame(cells, index).fillna("–").reset_index(names=["Of", "Group"])
    return table.assign(Of=table["Of"].map(CHARACTERISTICS))


def printed_differences(table: pd.DataFrame) -> pd.DataFrame:
    """`compared` as it is printed."""
    cells = {"Of": table["characteristic"].map(CHARACTERISTICS), "Group": table["group"], "Against": table["reference"]}
    cells["Outcome"] = table["outcome"].map(axes())
    cells["As it is"] = [f"{raw:+,.1f}".replace("-", "−") if raw == raw else "–" for raw in table["raw"]]
    cells["Within DRGs"] = with_interval(table, "+,.1f", "within")
    return pd.DataFrame(cells | {"p (Holm)": p_values(table["p_holm"])})


def axes() -> dict[str, str]:
    """The outcomes, in words with their units."""
    return {name: f"{what} ({unit})" for name, (what, unit) in OUTCOMES.items()}


def sentences(table: pd.DataFrame, alarms: pd.DataFrame) -> list[str]:
    """What came out, in sentences; `table` is from `compared`, `alarms` from `false_alarms`."""
    told = table.dropna(subset="p")
    if told.empty:
        return ["No two groups can be compared within DRGs: too few stays share one."]

    def said(row) -> str:
        what, unit = OUTCOMES[row.outcome]
        digits = int(unit == "points")
        value, lower, upper, raw = (signed(number, digits) for number in (row.within, row.lower, row.upper, row.raw))
        return (
            f"{row.group} against {row.reference} ({CHARACTERISTICS[row.characteristic].lower()}): {what} {value} {unit} "
            f"within DRGs (95 % interval {lower} to {upper}), {raw} as it is"
        )

    found = [f"{said(row)}." for row in told[told["p_holm"] < ALPHA].itertuples()]
    accuracy = told[told["outcome"] == "accuracy"]
    if not found and accuracy.empty:
        found = [f"No difference within DRGs survives the correction for {len(told)} comparisons."]
    elif not found:
        reach = signed(accuracy["lower"].min(), 0), signed(accuracy["upper"].max(), 0)
        found = [
            f"No difference within DRGs survives the correction for {len(told)} comparisons. That is not to say that all are "
            f"served alike: the intervals of accuracy reach from {reach[0]} to {reach[1]} points."
        ]
    if not accuracy.empty:
        widest = accuracy.loc[accuracy["raw"].abs().idxmax()]
        found.append(f"The largest difference in accuracy as it is: {said(widest)}.")
    for name, row in alarms.iterrows():
        found.append(
            f"With {CHARACTERISTICS[name].lower()} dealt out anew among the patients, {100 * row['single']:.1f} % of the "
            f"comparisons have p below 5 %, and in {100 * row['any']:.1f} % of the draws one survives the correction."
        )
    return found
