"""Differences between models, between splits, and from what is published; and the sentences that state them."""

from __future__ import annotations

import itertools
import operator
import re

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind, ttest_rel
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from drgstudy import disclosure, published
from drgstudy.bootstrap import difference
from drgstudy.metrics import METRICS, Scores, share
from drgstudy.plots.style import style_of
from drgstudy.study import progress
from drgstudy.tables import hour_name, signed, spread

BOTH = [False, True]


def differences(
    scores: dict[str, Scores | list[Scores]], run: str, resamples: int, seed: int, mask_below: int = 0
) -> pd.DataFrame:
    """`run` minus each other run on the same resamples of all test stays; NaN where a small count would follow.

    Parameters
    ----------
    scores : dict of run to Scores, or to a list of them
        Of a list, such as the models of all folds, the mean is compared.

    Returns
    -------
    DataFrame
        run and model (of the other), metric, difference, lower and upper (95 % interval), p, p_holm, models (of `run`
        and of the other, "5 and 2"; "" if each has one), sentence. p_holm is corrected for all rows by Holm's method:
        if those below 0.05 count, the chance of even one false difference among them is at most 5 %.
    """
    columns = ["run", "model", "metric", "difference", "lower", "upper", "p"]
    others = progress([other for other in scores if other != run], desc="comparing")
    parts = {other: difference(scores[run], scores[other], resamples, seed) for other in others}
    if not parts:
        return pd.DataFrame(columns=[*columns, "p_holm", "models", "sentence"])
    table = pd.concat(parts, names=["run", "metric"]).reset_index()
    table = table.assign(model=[style_of(other)[0] for other in table["run"]])[columns]
    table["p_holm"] = multipletests(table["p"], method="holm")[1]
    table["models"] = [_models(scores[run], scores[other]) for other in table["run"]]
    untold = {name: _untold(one, mask_below) for name, one in scores.items()}
    masked = [
        metric in untold[run] | untold[other] for metric, other in zip(table["metric"], table["run"], strict=True)
    ]
    table.loc[masked, ["difference", "lower", "upper", "p", "p_holm"]] = np.nan
    return table.assign(sentence=[difference_sentence(style_of(run)[0], row) for row in table.itertuples()])


def _listed(scores: Scores | list[Scores]) -> list[Scores]:
    return scores if isinstance(scores, list) else [scores]


def _models(*sides: Scores | list[Scores]) -> str:
    """How many models each side has the mean of: "5 and 2", or "" if all have one."""
    counts = [len(_listed(side)) for side in sides]
    return " and ".join(map(str, counts)) if max(counts) > 1 else ""


def _untold(scores: Scores | list[Scores], mask_below: int) -> set[str]:
    """The accuracies of all test stays that would give a small count away, of one of the models at least."""
    untold = set()
    for one in _listed(scores):
        found = pd.Series(one.evaluate()).filter(like="acc_at_")
        untold |= {*found.index[disclosure.shares(found, len(one.truth), mask_below).isna()]}
    return untold


def difference_sentence(a: str, row) -> str:
    """A sentence on the difference of model `a` minus another: `a` is above, below, or can't be told apart from it.

    `row` has model, metric, difference, lower, upper, p_holm and models, as in `differences`. A difference counts if its
    interval excludes zero and p_holm is below 0.05.
    """
    if row.difference != row.difference:
        return f"The difference of {a} and {row.model} in {METRICS[row.metric]} is not shown: small counts would follow from it."
    amount = _amount(row)
    amount += f"; p {f'= {row.p_holm:.2g}' if row.p_holm >= 0.001 else '< 0.001'} after correction"
    metric = METRICS[row.metric]
    apart = not row.lower <= 0 <= row.upper
    if apart and row.p_holm < 0.05:
        return f"{a} is {'above' if row.difference > 0 else 'below'} {row.model} in {metric} ({amount})."
    if not apart:
        return f"{a} and {row.model} can't be told apart in {metric} ({amount})."
    return f"{a} and {row.model} differ in {metric} by themselves, but not after correction for all comparisons ({amount})."


def _amount(row) -> str:
    means = f"means of {row.models} models: " if row.models else ""
    return f"{means}{row.difference:+.3f}, 95 % interval {row.lower:+.3f} to {row.upper:+.3f}".replace("-", "−")


def t_tests(table: pd.DataFrame, run: str, other: str) -> pd.DataFrame:
    """Two-sided t-tests of one run's fold models against another's, paired by fold; the early-DRG paper does not pair them.

    `table` is as `results.by_fold` returns it.

    Returns
    -------
    DataFrame
        drg_set, metric, folds (in both runs), difference of the means, t, p, and p_unpaired, the paper's; without rows that
        have fewer than two folds in both runs.

    Notes
    -----
    The models share most of their training stays and all of their hold-out stays. So p says only whether other folds
    would have reversed the order, not whether other patients would.
    """
    rows, keys = [], ["drg_set", "metric"]
    ours, theirs = (table[table["run"] == name][[*keys, "folds", "each"]] for name in (run, other))
    for row in ours.merge(theirs, on=keys, suffixes=("_a", "_b")).itertuples():
        pairs = pd.DataFrame(
            {"a": pd.Series(row.each_a, row.folds_a), "b": pd.Series(row.each_b, row.folds_b)}
        ).dropna()
        gain = pairs["a"] - pairs["b"]
        if gain.std() > 1e-12:  # else there are no two folds, or nothing that t could be measured by
            t, p = ttest_rel(pairs["a"], pairs["b"])
            unpaired = ttest_ind(pairs["a"], pairs["b"]).pvalue
            rows.append((row.drg_set, row.metric, len(pairs), gain.mean(), t, p, unpaired))
    return pd.DataFrame(rows, columns=[*keys, "folds", "difference", "t", "p", "p_unpaired"])


def split_effect(apart: dict, together: dict, resamples: int, seed: int, mask_below: int = 0) -> pd.DataFrame:
    """Scores of models that know other stays of the test patients minus scores of those that do not, on the same stays.

    Metrics from which a small count would follow are left out.

    Parameters
    ----------
    apart, together : dict of run to Scores, or to a list of them
        The same models in the same order, trained on as many stays; of a list, such as the models of all folds, the mean.

    Returns
    -------
    DataFrame
        run, model, metric, together, apart, difference, lower, upper, p, p_holm (over all rows) and models.
    """
    parts = []
    for (name, ours), theirs in zip(together.items(), apart.values(), strict=True):
        table = difference(ours, theirs, resamples, seed).rename_axis("metric").reset_index()
        both = {"together": _means(ours), "apart": _means(theirs)}
        table = table.assign(**{key: table["metric"].map(values) for key, values in both.items()})
        hidden = _untold(ours, mask_below) | _untold(theirs, mask_below)
        parts.append(
            table[~table["metric"].isin(hidden)].assign(run=name, model=style_of(name)[0], models=_models(ours, theirs))
        )
    table = pd.concat(parts, ignore_index=True)
    table["p_holm"] = multipletests(table["p"], method="holm")[1]
    columns = ["run", "model", "metric", "together", "apart", "difference", "lower", "upper", "p", "p_holm", "models"]
    return table[columns]


def _means(scores: Scores | list[Scores]) -> pd.Series:
    """Each metric's mean over the models."""
    return pd.DataFrame([one.evaluate() for one in _listed(scores)]).mean()


def leakage_sentence(row) -> str:
    """A sentence on a row of `split_effect`: does the model score higher where it knows the patients?"""
    amount = _amount(row)
    certain = row.p_holm < 0.05 and row.difference > 0
    verdict = "scores higher where it knows the patients" if certain else "shows no certain leakage"
    return f"{row.model} {verdict} in {METRICS[row.metric]} ({amount})."


def cmi_sentences(system: str, compared: list[int], found: dict) -> list[str]:
    """What the early-DRG paper's Figures 1 to 3 show for one system, in sentences, beside what is published.

    Parameters
    ----------
    system : "ms" or "apr"
    compared : list of int
        Two hours, the earlier first.
    found : dict
        For this system: errors (`casemix.errors_by_hour`), change (`casemix.change_by_hour`), sizes
        (`casemix.errors_by_size`, at the earlier hour; cohort is NaN where it is masked), paid (`casemix.payments`),
        hidden (`casemix.cancelled`, at the later hour), and against_guess: by hour, `casemix.change_by_hour` from a guess
        that reads nothing to the models.
    """
    earlier, later = compared
    paper = published.table("Text", "Early DRG").query("system == @system").set_index("metric")
    weight = (
        published.table("Table 1", "Early DRG")
        .query("system == @system and metric == 'relative_weight'")
        .set_index("drg_set")["value"]
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
    span = {
        hour: "{lower:.1f} to {upper:.1f}".format(**found["change"].loc[row])
        for hour, row in zip(compared, ("earlier", "later"), strict=True)
    }
    verdict = f"hour {later} is {'better' if change['value'] < 0 else 'worse'} than hour {earlier}"
    if change["lower"] <= 0 <= change["upper"]:
        verdict = f"it can’t be told whether hour {later} is better than hour {earlier}"
    guess = 100 * abs(weight["Train set"] / weight["Test cohort"] - 1)
    blind, against = found["against_guess"][later].loc["earlier", "value"], []
    for hour, part in found["against_guess"].items():
        gain = part.loc["change"]
        than = _by_interval(gain, "can’t be told from it", "are nearer", "are farther off")
        against.append(f"the models of hour {hour} {than} ({_points(gain)})")
    last, sizes, hidden = found["paid"].set_index("hour").loc[later], found["sizes"], found["hidden"]
    missed, cohort = last["dollars_predicted"] - last["dollars_true"], sizes["cohort"].iloc[0]
    whole = f"the cohort’s {cohort:,.0f}" if cohort == cohort else "the cohort"
    repeats = f"; those above {cohort:,.0f} only repeat them" if sizes["size"].max() > cohort else ""
    return [
        f"With the notes of {earlier} hours the case-mix index is off by {off[earlier]} %, with those of {later} hours by "
        f"{off[later]} % (mean and SD over the models; published at 24 hours: {theirs} %). Resampled test cohorts give "
        f"{span[earlier]} % and {span[later]} % (95 %); {verdict} ({_points(change)}).",
        f"In this cohort the error {settles} (published: below {below:g} % after hour 24).",
        f"A guess that reads nothing, the mean weight of the training stays, is off by {blind:.1f} %; on the same resampled "
        f"stays {' and '.join(against)}. On the paper’s cohort it would have been off by {guess:.1f} % (its Table 1).",
        f"In populations of {sizes['size'].min():,} to {sizes['size'].max():,} stays the mean error at hour {earlier} is "
        f"{sizes['mean'].min():.1f} to {sizes['mean'].max():.1f} % (published: under "
        f"{paper.loc['cmi_error_percent_24h_below', 'value']:g} %). They are drawn from {whole} with replacement{repeats}.",
        f"{last['stays']:,.0f} stays, drawn {'with replacement ' if last['stays'] > last['cohort'] else ''}from "
        f"{last['cohort']:,.0f} hold-out stays, are paid ${last['dollars_true']:,.0f}; at hour {later} the models expect "
        f"${abs(missed):,.0f} {'less' if missed < 0 else 'more'} ({signed(100 * missed / last['dollars_true'], 1)} %).",
        f"A single stay’s payment is off by ${hidden['stay_dollars']:,.0f}; {100 * hidden['cancels']:.0f} % of these errors "
        "cancel in the sum.",
    ]


def _by_interval(row, both: str, below: str, above: str) -> str:
    """One of three verdicts: the 95 % interval of `row` (lower, upper) holds zero, lies below it, or above it."""
    return below if row["upper"] < 0 else above if row["lower"] > 0 else both


def _points(row) -> str:
    """A difference in percentage points and its 95 % interval in print; `row` has value, lower and upper."""
    value, lower, upper = (signed(row[key], 1) for key in ("value", "lower", "upper"))
    return f"{value} points, 95 % interval {lower} to {upper}"


def regression_sentences(system: str, value: pd.DataFrame, gains: pd.DataFrame) -> list[str]:
    """Is a weight that is predicted as a number nearer than one that follows from a DRG, or a guess that reads nothing?

    Both tables are of one system. `value` has metrics of `casemix.regression_scores` (columns) by way (index), averaged
    over the models. `gains` has what `casemix.mae_difference` returns for the regression against each other way (index).
    """
    words = {"top-1 DRG": "the weight of the top-1 DRG", "expected": "the expected weight"}
    words["reads nothing"] = "a guess that reads nothing"
    said, ours = [], value.loc["regression"]
    for way, row in gains.iterrows():
        verdict = _by_interval(row, "can’t be told from", "is nearer than", "is farther off than")
        said.append(
            f"A weight said as a number {verdict} {words[way]}: it is off by {ours['mae']:.2f} on average, against "
            f"{value.loc[way, 'mae']:.2f} (difference {signed(row['difference'], 2)}, 95 % interval "
            f"{signed(row['lower'], 2)} to {signed(row['upper'], 2)})."
        )
    bound = (
        published.table("Text", "Early DRG").query("system == @system").set_index("metric").loc["mae_below", "value"]
    )
    errors = ours["cmi_error_percent"], value.loc["top-1 DRG", "cmi_error_percent"]
    return [
        *said,
        f"The regression’s case-mix index is off by {errors[0]:.1f} %, the top-1 DRG’s by {errors[1]:.1f} %; its mean absolute "
        f"error is {ours['mae']:.2f} (published: under {bound:g}).",
    ]


def time_gains(cost: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """By how many per cent training takes longer with twice the tokens, and with the larger model, as it is printed.

    `cost` and `sizes` are as `results.costs` and `results.sizes` return them.

    Notes
    -----
    Where the names of two sizes do not say which is the larger, the slower is shown against the other.

    Source: DRG-LLaMA, Supplementary Results 4.2 ("approximately 90 %" and "roughly 70 %").
    """
    text = published.table("Text").set_index(["row", "metric"])["value"]
    rows, seconds = [], cost["train_seconds"].astype(float)
    for (run, one), (other, two) in itertools.permutations(sizes.iterrows(), 2):
        if one["size"] == two["size"] and one["max_tokens"] == 2 * two["max_tokens"]:
            step, gain = f"{two['max_tokens']} → {one['max_tokens']} tokens, {one['size']}", "Twice the tokens"
        elif one["max_tokens"] == two["max_tokens"]:
            larger = _is_larger(one["size"], two["size"])
            if not (seconds[run] > seconds[other] if larger is None else larger):
                continue
            step = f"{two['size']} → {one['size']}, {one['max_tokens']} tokens"
            gain = "13B against 7B" if larger else ""
        else:
            continue
        ours, theirs = 100 * (seconds[run] / seconds[other] - 1), text.get((gain, "training_time_gain_percent"))
        rows.append((step, f"{gain}: {theirs:+.0f} %" if gain else "–", f"{signed(ours, 0)} %"))
    return pd.DataFrame(rows, columns=["Step", "MIMIC-IV (published)", "Training time (this run)"])


def _is_larger(one: str, two: str) -> bool | None:
    """Whether one size of Table 2 is above another, as far as their names tell; None if they don't.

    A base is above its own first layers, and "llama-13b" above "llama-7b".
    """
    (base, layers), (other, others) = (
        re.fullmatch(r"(.*?)(?:, first (\d+) layers)?", size).groups() for size in (one, two)
    )
    if base == other:
        return float(layers or "inf") > float(others or "inf")
    said = [re.search(r"(\d+(?:\.\d+)?)(m|b)(?![a-z])", name.lower()) for name in (base, other)]
    if layers or others or not all(said):
        return None
    return operator.gt(*(float(number[1]) * {"m": 1, "b": 1000}[number[2]] for number in said))


def right_alone(right: pd.DataFrame, rule: str, mask_below: int) -> dict:
    """How often two labels are right where one label is not, and the reverse, on the same stays.

    Parameters
    ----------
    right : DataFrame of bool
        One row for each stay, one column for each way to name its DRG, "One label" among them.
    rule : str
        The column that is compared with "One label".
    mask_below : int
        Smaller counts are masked.

    Returns
    -------
    dict
        only_one_label and only_two_labels (stays), p of McNemar's exact test, and the sentence. If one of the counts is
        small, p is None and the sentence has neither: with the difference of the accuracies, each gives the other away.
    """
    one, two = right["One label"], right[rule]
    counts = {"only_one_label": int((one & ~two).sum()), "only_two_labels": int((two & ~one).sum())}
    p = float(
        mcnemar(pd.crosstab(one, two).reindex(index=BOTH, columns=BOTH, fill_value=0).to_numpy(), exact=True).pvalue
    )
    rates = disclosure.shares(pd.Series([two.mean(), one.mean()]), len(one), mask_below)
    rates = rates.map("{:.3f}".format, na_action="ignore").fillna("–")
    said = f"{rule}: {rates[0]} right, one label {rates[1]}; of the stays that only one of the two gets right, "
    if any(disclosure.is_small(n, mask_below) for n in counts.values()):
        few = dict.fromkeys(counts) | {"p": None}
        return few | {"sentence": f"{said}so few go to one side that the two can't be shown."}
    return counts | {
        "p": p,
        "sentence": f"{said}{counts['only_two_labels']:,} go to two labels and {counts['only_one_label']:,} to one (p = {p:.2f}).",
    }


def known_patients(known: pd.Series, stays: str, mask_below: int) -> tuple[dict, str]:
    """How many of the stays tested on are of a patient who also has a training stay: numbers, and a sentence.

    `known` says so of each stay (bool); `stays` is the sentence's word for them, such as "test stays".
    """
    n, whole, share = int(known.sum()), len(known), float(known.mean())
    told = not disclosure.tells_of_few(n, whole, mask_below)
    percent = f" ({share:.0%})" * told
    said = f"{disclosure.part(n, whole, mask_below)} of {whole} {stays}{percent} are of a patient who is also in the training stays."
    return {"known_stays": n if told else None, "known_share": share if told else None}, said[0].upper() + said[1:]


def trust_sentences(
    run: str, calibrated: pd.DataFrame, answered: pd.DataFrame, mix: pd.DataFrame, against: dict[str, pd.DataFrame]
) -> list[str]:
    """Does a model know when it is right, how much may it do alone, and what would its errors cost? In sentences.

    Parameters
    ----------
    run : str
    calibrated : DataFrame
        `calibration.assess` of each run, indexed by run and measure.
    answered : DataFrame
        `calibration.coverage_at` of each run: run, target, and its columns.
    mix : DataFrame
        `casemix.case_mix` of each run, and of "Training mean", a guess that reads nothing: run, way, measure, value,
        lower and upper.
    against : dict of way to DataFrame
        `casemix.change_by_hour` from that guess to the run's weights.
    """
    name = style_of(run)[0]
    found = [_calibration_sentence(name, calibrated.loc[run].astype(float))]
    for part in answered[answered["run"] == run].dropna(subset="value").itertuples():
        right = f"makes {100 * part.target:g} % of its answers right on one half of the stays"
        if part.threshold != part.threshold:
            found.append(f"No threshold {right}: a coder does all.")
            continue
        share, lower, upper = 100 * part.value, 100 * part.lower, 100 * part.upper
        kept = f"{100 * part.accuracy:.0f} % ({100 * part.accuracy_lower:.0f} to {100 * part.accuracy_upper:.0f})"
        found.append(
            f"A threshold that {right} lets it answer {share:.0f} % of the other half (95 % interval {lower:.0f} to {upper:.0f})"
            + (f", of which {kept} are right" if part.accuracy == part.accuracy else "")
            + "; a coder does the rest."
        )
    money = mix.set_index(["run", "way", "measure"])[["value", "lower", "upper"]].sort_index()
    whose = {
        (run, "top-1"): f"By {name}'s top-1 weights",
        (run, "expected"): f"By {name}'s expected weights",
        ("Training mean", "expected"): "By the mean of the training stays, which reads nothing,",
    }
    for guess, words in whose.items():
        rows = money.loc[guess]
        total, off = rows.loc["dollars_per_100", "value"], rows.loc["error_percent"]
        sign = "can't be told from zero" if off["lower"] <= 0 <= off["upper"] else "more than chance would do"
        found.append(
            f"{words} the hospital expects ${abs(total):,.0f} too {'little' if total < 0 else 'much'} for 100 stays "
            f"({off['value']:+.1f} %, {sign}); a single stay is off by ${rows.loc['mae_dollars', 'value']:,.0f}."
        )
    nearer = [
        f"by {way} weights {_by_interval(row, 'can’t be told from it', 'is nearer', 'is farther off')} ({_points(row)})"
        for way, row in ((way, table.loc["change"]) for way, table in against.items())
    ]
    found.append(f"Compared with that guess on the same resampled stays, the total {' and '.join(nearer)}.")
    return [sentence.replace(" -", " −").replace("(-", "(−") for sentence in found]


def _calibration_sentence(name: str, row: pd.DataFrame) -> str:
    """One sentence of overconfidence and calibration error together, for the two are tests of different power.

    The first is a mean of signed gaps, and notices a leaning to one side with fewer stays. The second adds up unsigned
    gaps of several groups, and notices gaps that cancel. `row` is as `calibration.assess` returns it.
    """
    right, confident = 100 * row.loc[["accuracy", "confidence"], "value"]
    if right != right:
        return f"{name} is on average {confident:.0f} % sure; how often it is right is not shown, for small counts would follow."
    sure = 100 * row.loc["overconfidence", ["value", "lower", "upper"]]
    leans = _by_interval(sure, "", "too modest", "overconfident")
    error, chance = row.loc["ece", "value"], row.loc["ece_by_chance", "upper"]
    beyond, link, why = error > chance, "and", ""
    if beyond != bool(leans):
        link, why = "but", ", which sees gaps that cancel," if beyond else ", which needs more stays to show that,"
    return (
        f"{name} is right in {right:.0f} % of the stays and on average {confident:.0f} % sure: it "
        f"{f'is {leans}' if leans else 'leans to neither side beyond chance'} ({_points(sure)}), {link} its calibration error of "
        f"{error:.3f}{why} is {'more than' if beyond else 'within what'} chance gives (up to {chance:.3f}); with a temperature "
        f"it is {row.loc['ece_tempered', 'value']:.3f}."
    )


def by_stratum(strata: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """The accuracy of each model in each stratum, and how much better than the first model each other one is.

    Parameters
    ----------
    strata : DataFrame of bool
        Which stays are in which stratum.
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
