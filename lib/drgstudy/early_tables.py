"""The early-DRG study's tables of DRG prediction, and its five cases: predictions in, rows out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from scipy.stats import ttest_ind

from drgstudy import drgs, plots
from drgstudy.metrics import Scores
from drgstudy.predictions import Predictions
from drgstudy.study import REFERENCE, StudyError

METRICS = {"macro_auc": "macro-AUC", "micro_auc": "micro-AUC", "macro_f1": "macro-F1", "acc_at_1": "micro-F1"}
"""Table 2's. Where each stay has one label and gets one, micro-F1 is the accuracy."""
MDCS = ("05", "01", "04")  # circulatory, nervous and respiratory system: the paper's
TOP_DRGS = (50, 30)
SEPSIS, PNEUMONIA = ("870", "871", "872"), ("177", "178", "179", "193", "194", "195")


def published(table: str) -> pd.DataFrame:
    """One table as the early-DRG paper prints it: system, model, drg_set, metric (micro-F1 as acc_at_1), value, sd."""
    values = pd.read_csv(REFERENCE / "published_early.csv").replace({"metric": {"micro_f1": "acc_at_1"}})
    return values[values["table"] == table].drop(columns="table").reset_index(drop=True)


def published_cases() -> pd.DataFrame:
    """Table 3 as the paper prints it, but for its phrases, which are MIMIC's."""
    cases = pd.read_csv(REFERENCE / "published_early_cases.csv", dtype={"true_drg": str, "predicted_drg": str})
    weights = cases.groupby("case")["weight"].agg(lambda each: ", ".join(map("{:.4f}".format, each)))
    cases = cases.drop_duplicates("case").set_index("case").assign(weights=weights).reset_index()
    about = {"Case": cases["case"].astype(str) + ": " + cases["situation"]}
    for which in ("true", "predicted"):
        counts = cases[f"{which}_count"].astype(str)
        about[f"{which.capitalize()} DRG (stays)"] = cases[f"{which}_drg"] + " (" + counts + ")"
    return pd.DataFrame(about | {"Attention of its three 5-grams": cases["weights"]})


def drg_sets(system: str, labels: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Label indices of each of Table 2's sets of DRGs that occur in the hold-out stays; those that would hold all are left out.

    The most frequent DRGs are those of most hold-out stays, ties by code. Source: early-DRG paper, Table 2.
    """
    cases = np.bincount(truth, minlength=len(labels))
    ranked = np.argsort(-cases, kind="stable")[: (cases > 0).sum()]
    enough = 1 + np.searchsorted(np.cumsum(cases[ranked]), 0.8 * len(truth))
    mdc = drgs.fiscal_2013(system)["mdc"].loc[labels].to_numpy()
    sets = {"All DRGs": ranked}
    sets |= {f"MDC {code}": ranked[mdc[ranked] == code] for code in MDCS}
    sets |= {"Top 80% cases": ranked[:enough]} | {f"Top {n} DRGs": ranked[:n] for n in TOP_DRGS if n < len(ranked)}
    return {name: members for name, members in sets.items() if len(members)}


def table2(system: str, runs: dict[tuple[str, int], list[Predictions]]) -> pd.DataFrame:
    """Table 2 in long form: each metric in each set of DRGs, over the fold models of each run.

    Parameters
    ----------
    runs : dict of (run, hours) to its predictions at that hour, one a fold model

    Returns
    -------
    DataFrame
        system, run, hours, model, drg_set, metric, value (mean over the models), sd (n - 1; NaN with one model), models,
        n_drgs and n_stays of the set, percent_stays, and `each`: the list of the models' values (NaN left out).

    Notes
    -----
    In a set count the hold-out stays whose true DRG is in it; all labels still compete.
    """
    rows = []
    for (run, hours), models in runs.items():
        name = plots.look(run.replace(f"-{system}", ""))[0] + (f", {hours} hours" if hours != 48 else "")
        sets = drg_sets(system, models[0].labels, models[0].truth)
        scores = [Scores(made.logits, made.truth) for made in models]
        for drg_set, members in sets.items():
            among = scores[0].among(members)
            each = pd.DataFrame([one.evaluate(among) for one in scores])
            about = {"system": system, "run": run, "hours": hours, "model": name, "drg_set": drg_set}
            size = {
                "models": len(each),
                "n_drgs": len(members),
                "n_stays": int(among.sum()),
                "percent_stays": 100 * among.mean(),
            }
            for metric in METRICS:
                value = {
                    "value": each[metric].mean(),
                    "sd": each[metric].std(ddof=1),
                    "each": each[metric].dropna().tolist(),
                }
                rows.append(about | {"metric": metric} | value | size)
    return pd.DataFrame(rows)


def printed2(table: pd.DataFrame) -> pd.DataFrame:
    """Table 2 as it is printed, ours or the published one; mean (SD over the models), a dash where there is one model."""
    cells = table[table["metric"].isin(METRICS)]
    spread = cells["sd"].map("{:.3f}".format).where(cells["sd"].notna(), "–")
    keys = ["system", "model", "drg_set"]
    cells = cells.assign(cell=cells["value"].map("{:.3f}".format) + " (" + spread + ")")
    wide = cells.set_index([*keys, "metric"])["cell"].unstack(sort=False)[list(METRICS)].fillna("–")
    if "n_drgs" in table:
        size = table.groupby(keys, sort=False)[["n_drgs", "n_stays", "percent_stays"]].first()
    else:
        size = table.pivot(index=keys, columns="metric", values="value")[["n_drgs", "n_stays", "percent_stays"]]
    size = size.reindex(wide.index)
    wide["DRG targets"] = [f"{n:,.0f}" if n == n else "–" for n in size["n_drgs"]]
    wide["Stays (%)"] = [
        f"{n:,.0f} ({p:.1f})" if n == n else "–" for n, p in size[["n_stays", "percent_stays"]].to_numpy()
    ]
    names = {"system": "System", "model": "Model", "drg_set": "DRG set"} | METRICS
    wide = wide.rename_axis(columns=None).reset_index().rename(columns=names)
    return wide.assign(System=wide["System"].map(plots.SYSTEMS))


def t_tests(table: pd.DataFrame, run: str, other: str) -> pd.DataFrame:
    """Two-sided t-tests of one run's models against another's, as the paper compares CAML with the LSTM.

    Returns
    -------
    DataFrame
        drg_set, metric, difference of the means, t, p; empty if a run has a single model.

    Notes
    -----
    The models share most of their training stays and all of their hold-out stays, so p says only whether another fold
    would have turned the order round, not whether other patients would.
    """
    rows = []
    ours, theirs = (table[table["run"] == name].set_index(["drg_set", "metric"])["each"] for name in (run, other))
    for (drg_set, metric), values in ours.items():
        if (drg_set, metric) in theirs.index and min(len(values), len(theirs[drg_set, metric])) > 1:
            t, p = ttest_ind(values, theirs[drg_set, metric])
            gain = np.mean(values) - np.mean(theirs[drg_set, metric])
            if np.isfinite(t):  # it is not where the models of each run agree to the last digit
                rows.append({"drg_set": drg_set, "metric": metric, "difference": gain, "t": t, "p": p})
    return pd.DataFrame(rows, columns=["drg_set", "metric", "difference", "t", "p"])


def five_cases(made: Predictions, cases: pd.Series, trained: set[str]) -> pd.DataFrame:
    """One stay for each of Table 3's five situations, the one of which the model is surest; none where none fits.

    Parameters
    ----------
    made : Predictions
        Of MS-DRGs.
    cases : Series of int
        Stays of each DRG in the cohort.
    trained : set of str
        DRGs that the model was trained on.

    Returns
    -------
    DataFrame
        case (1 to 5), situation, position (in the predictions), true_drg, predicted_drg, true_count, predicted_count.
    """
    facts = drgs.fiscal_2013("ms")
    base = facts["title"].str.replace(r" W(?:/O)? (?:CC/MCC|MCC|CC)$", "", regex=True)
    stays = pd.DataFrame({"true_drg": made.labels[made.truth], "predicted_drg": made.labels[made.logits.argmax(1)]})
    stays["sure"] = log_softmax(made.logits, axis=1).max(1)
    for which in ("true", "predicted"):
        stays[f"{which}_count"] = stays[f"{which}_drg"].map(cases).fillna(0).astype(int)
    wrong = stays["true_drg"] != stays["predicted_drg"]
    known = stays["true_drg"].isin(trained)
    same_base = stays["true_drg"].map(base) == stays["predicted_drg"].map(base)
    same_mdc = stays["true_drg"].map(facts["mdc"]) == stays["predicted_drg"].map(facts["mdc"])
    rare = stays["true_count"] * 3 <= stays["predicted_count"]
    situations = {
        "right": ~wrong,
        "pneumonia where sepsis was": stays["true_drg"].isin(SEPSIS) & stays["predicted_drg"].isin(PNEUMONIA),
        "CC against MCC": wrong & known & same_base,
        "a frequent DRG where a rare one was": wrong & known & ~same_base & same_mdc & rare,
        "a DRG never seen in training": wrong & ~known,
    }
    rows = []
    for case, (situation, fits) in enumerate(situations.items(), 1):
        if fits.any():
            at = stays.loc[fits, "sure"].idxmax()
            rows.append({"case": case, "situation": situation, "position": at} | stays.loc[at].drop("sure").to_dict())
    if not rows:
        raise StudyError("the five cases: no stay was predicted")
    return pd.DataFrame(rows)


def spread(mean: float, sd: float, digits: int = 2) -> str:
    """Mean and standard deviation over the models; dashes for what there is not, as with one model."""
    texts = [f"{value:.{digits}f}" if value == value else "–" for value in (mean, sd)]
    return f"{texts[0]} ({texts[1]})" if mean == mean else "–"


def signed(value: float, digits: int) -> str:
    """A number with its sign, a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def hour_name(hour: float) -> str:
    """An hour with its sign: "+24", "−6", "0"."""
    return signed(hour, 0) if hour else "0"


def cmi_sentences(system: str, compared: list[int], found: dict) -> list[str]:
    """What Figures 1 to 3 say of one system in words, beside what is published.

    Parameters
    ----------
    compared : two hours, the earlier first
    found : dict
        Of this system: errors (`casemix.errors_by_hour`), change (`casemix.change_by_hour`), sizes (`errors_by_size` at
        the earlier hour), paid (`casemix.payments`), hidden (`casemix.cancelled`, at the later hour) and blind, the error
        of a guess that reads nothing.
    """
    earlier, later = compared
    paper = published("Text").query("system == @system").set_index("metric")
    weight = (
        published("Table 1").query("system == @system and metric == 'relative_weight'").set_index("drg_set")["value"]
    )
    errors, change = found["errors"].set_index("hour"), found["change"].loc["change"]
    off = {hour: spread(*errors.loc[hour, ["mean", "sd"]]) for hour in compared}
    theirs = spread(*paper.loc["cmi_error_percent_24h", ["value", "sd"]])
    below = paper.loc["cmi_error_percent_after_24h_below", "value"]
    above = errors.index[errors["mean"] >= below]
    since = errors.index[errors.index > above.max()] if len(above) else errors.index
    settles = (
        f"stays below {below:g} % from hour {hour_name(since[0])} on" if len(since) else f"reaches {below:g} % and more"
    )
    value, lower, upper = (signed(change[key], 1) for key in ("value", "lower", "upper"))
    amount = f"{value} points, 95 % interval {lower} to {upper}"
    verdict = f"hour {later} is {'better' if change['value'] < 0 else 'worse'} than hour {earlier}"
    if change["lower"] <= 0 <= change["upper"]:
        verdict = f"it can’t be told whether hour {later} is better than hour {earlier}"
    guess = 100 * abs(weight["Train set"] / weight["Test cohort"] - 1)
    last, sizes, hidden = found["paid"].set_index("hour").loc[later], found["sizes"], found["hidden"]
    missed = last["dollars_predicted"] - last["dollars_true"]
    return [
        f"With the notes of {earlier} hours the case-mix index is off by {off[earlier]} %, with those of {later} hours by "
        f"{off[later]} % (mean and SD over the models; published at 24 hours: {theirs} %); {verdict} ({amount}).",
        f"The error {settles} (published: below {below:g} % after hour 24).",
        f"A guess that reads nothing, the mean weight of the training stays, is off by {found['blind']:.1f} %; on the "
        f"paper’s cohort it would have been off by {guess:.1f} % (its Table 1).",
        f"In populations of {sizes['size'].min():,} to {sizes['size'].max():,} stays the mean error at hour {earlier} is "
        f"{sizes['mean'].min():.1f} to {sizes['mean'].max():.1f} % (published: under "
        f"{paper.loc['cmi_error_percent_24h_below', 'value']:g} %).",
        f"{last['stays']:,.0f} sampled stays are paid ${last['dollars_true']:,.0f}; at hour {later} the models expect "
        f"${abs(missed):,.0f} {'less' if missed < 0 else 'more'} ({signed(100 * missed / last['dollars_true'], 1)} %).",
        f"A single stay’s payment is off by ${hidden['stay_dollars']:,.0f}; {100 * hidden['cancels']:.0f} % of these errors "
        "cancel in the sum.",
    ]


def regression_sentences(system: str, value: pd.DataFrame, gains: pd.DataFrame) -> list[str]:
    """Is a weight said as a number nearer than one that follows from a DRG, or than a guess that reads nothing?

    `value` has the mean of each metric (columns) by way (index) in one system, `gains` is `casemix.nearer` of the
    regression against each other way (index).
    """
    words = {"top-1 DRG": "the weight of the top-1 DRG", "expected": "the expected weight"}
    words["reads nothing"] = "a guess that reads nothing"
    said, ours = [], value.loc["regression"]
    for way, row in gains.iterrows():
        verdict = (
            "is nearer than"
            if row["upper"] < 0
            else "is farther off than"
            if row["lower"] > 0
            else "can’t be told from"
        )
        said.append(
            f"A weight said as a number {verdict} {words[way]}: it is off by {ours['mae']:.2f} on average, against "
            f"{value.loc[way, 'mae']:.2f} (difference {signed(row['difference'], 2)}, 95 % interval "
            f"{signed(row['lower'], 2)} to {signed(row['upper'], 2)})."
        )
    bound = published("Text").query("system == @system").set_index("metric").loc["mae_below", "value"]
    errors = ours["cmi_error_percent"], value.loc["top-1 DRG", "cmi_error_percent"]
    return [
        *said,
        f"The regression’s case-mix index is off by {errors[0]:.1f} %, the top-1 DRG’s by {errors[1]:.1f} %; its mean absolute "
        f"error is {ours['mae']:.2f} (published: under {bound:g}).",
    ]
