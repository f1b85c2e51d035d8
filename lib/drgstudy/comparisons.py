"""Differences between models, between splits, and from what is published; and the sentences that state them."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind, ttest_rel
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from drgstudy import disclosure, published
from drgstudy.bootstrap import Draws, difference
from drgstudy.metrics import METRICS, TOP, Scores, share
from drgstudy.plots.style import style_of
from drgstudy.predictions import Predictions
from drgstudy.study import StudyError, progress

BOTH = [False, True]


def differences(
    scores: dict[str, Scores | list[Scores]], run: str, resamples: int, seed: int, mask_below: int = 0,
    names: dict[str, str] | None = None, more: Sequence[tuple[str, str]] = (),
) -> pd.DataFrame:  # fmt: skip
    """`run` minus each other run on the same resamples of all test stays; NaN where a small count would follow.

    Parameters
    ----------
    scores : dict of run to Scores, or to a list of them
        Of a list, such as the models of all folds, the mean is compared.
    names : dict of run to str, optional
        As `names.names_of` returns it.
    more : sequence of (run, other)
        Further pairs to compare; those of which a run has no scores are left out.

    Returns
    -------
    DataFrame
        of (the first run), run and model (of the other), metric, difference, lower and upper (95 % interval), p, p_holm,
        models (of the first and of the other, "5 and 2"; "" if each has one), sentence. p_holm is corrected for all rows
        by Holm's method: if those below 0.05 count, the chance of even one false difference among them is at most 5 %.
    """
    columns = ["of", "run", "model", "metric", "difference", "lower", "upper", "p"]
    draws, drawn = _drawn(scores, resamples, seed)
    pairs = [(run, other) for other in scores if other != run] + [pair for pair in more if scores.keys() >= {*pair}]
    parts = {(of, other): draws.difference(drawn[of], drawn[other]) for of, other in pairs}
    if not parts:
        return pd.DataFrame(columns=[*columns, "p_holm", "models", "sentence"])
    table = pd.concat(parts, names=["of", "run", "metric"]).reset_index()
    table = table.assign(model=[style_of(other, names)[0] for other in table["run"]])[columns]
    table["p_holm"] = multipletests(table["p"], method="holm")[1]
    table["models"] = [_models(scores[row.of], scores[row.run]) for row in table.itertuples()]
    untold = {name: _untold(one, mask_below) for name, one in scores.items()}
    masked = [row.metric in untold[row.of] | untold[row.run] for row in table.itertuples()]
    table.loc[masked, ["difference", "lower", "upper", "p", "p_holm"]] = np.nan
    return table.assign(sentence=[difference_sentence(style_of(row.of, names)[0], row) for row in table.itertuples()])


def with_best(
    table: pd.DataFrame, scores: dict[str, Scores | list[Scores]], resamples: int, seed: int, mask_below: int = 0
) -> pd.DataFrame:
    """The table of `results.table1` or `results.by_fold`, with `best` (bool): who is certainly first on all DRGs.

    That is the run that is better in a metric than each other run of `scores`: the interval of each difference, on the same
    resamples, excludes zero, and p is below 0.05 after Holm's correction for all metrics and all pairs of runs. Where a
    small count is masked, no run is marked in that metric.
    """
    draws, drawn = _drawn(scores, resamples, seed)
    won = pd.Series(0, pd.MultiIndex.from_product([scores, METRICS]))
    if pairs := list(itertools.combinations(scores, 2)):
        found = pd.concat({pair: draws.difference(drawn[pair[0]], drawn[pair[1]]) for pair in pairs})
        found = found[multipletests(found["p"].fillna(1), method="holm")[0] & (found["lower"] * found["upper"] > 0)]
        for (one, other, metric), gain in found["difference"].items():
            won[one if gain > 0 else other, metric] += 1
    first = won.index[won == max(1, len(scores) - 1)]  # a run that is alone is first in nothing
    untold = {metric for run in scores for metric in _untold(scores[run], mask_below)}
    whole = (table["drg_set"] == "All DRGs") & (table.get("hours", 48) == 48) & ~table["metric"].isin(untold)
    return table.assign(best=pd.MultiIndex.from_frame(table[["run", "metric"]]).isin(first) & whole)


def _drawn(scores: dict[str, Scores | list[Scores]], resamples: int, seed: int) -> tuple[Draws, dict]:
    """The same draws of all stays for every run, and what each of its models scores on them (`Draws.evaluate`)."""
    sides = {run: _listed(said) for run, said in scores.items()}
    truth = next(iter(sides.values()))[0].truth
    if not all(np.array_equal(one.truth, truth) for said in sides.values() for one in said):
        raise StudyError("the models' true labels differ; compare predictions on the same stays in the same order")
    draws = Draws(truth.size, resamples, seed)
    runs = progress(sides.items(), desc="resampling")
    return draws, {run: [draws.evaluate(one.evaluate) for one in said] for run, said in runs}


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
        return f"The difference between {a} and {row.model} in {METRICS[row.metric]} is not shown: small counts would follow from it."
    amount = _amount(row)
    amount += f"; {_p(row.p_holm)} after correction"
    metric = METRICS[row.metric]
    apart = not row.lower <= 0 <= row.upper
    if apart and row.p_holm < 0.05:
        return f"{a} is {'above' if row.difference > 0 else 'below'} {row.model} in {metric} ({amount})."
    if not apart:
        return f"{a} and {row.model} can't be told apart in {metric} ({amount})."
    return f"{a} and {row.model} differ in {metric} by themselves, but not after correction for all comparisons ({amount})."


def _p(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


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


def split_effect(
    apart: dict, together: dict, resamples: int, seed: int, mask_below: int = 0, names: dict[str, str] | None = None
) -> pd.DataFrame:
    """Scores of models that know other stays of the test patients minus scores of those that do not, on the same stays.

    Metrics from which a small count would follow are left out.

    Parameters
    ----------
    apart, together : dict of run to Scores, or to a list of them
        The same models in the same order, trained on as many stays; of a list, such as the models of all folds, the mean.
    names : dict of run to str, optional
        Of those in `together`, as `names.names_of` returns it.

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
            table[~table["metric"].isin(hidden)].assign(
                run=name, model=style_of(name, names)[0], models=_models(ours, theirs)
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table["p_holm"] = multipletests(table["p"], method="holm")[1]
    columns = ["run", "model", "metric", "together", "apart", "difference", "lower", "upper", "p", "p_holm", "models"]
    return table[columns]


def _means(scores: Scores | list[Scores]) -> pd.Series:
    """Each metric's mean over the models."""
    return pd.DataFrame([one.evaluate() for one in _listed(scores)]).mean()


def clinicians_effect(
    known: Predictions, new: Predictions, resamples: int, seed: int, mask_below: int = 0
) -> tuple[pd.DataFrame, str]:
    """What knowing the clinicians of a stay is worth to a model, on the stays that both of two runs were tested on.

    Parameters
    ----------
    known, new : Predictions
        Of one model: trained on other stays of these stays' clinicians, too; and on stays of other clinicians alone.

    Returns
    -------
    table : DataFrame
        As `split_effect` returns it; together is `known`.
    said : str
        How many stays are compared.

    Raises
    ------
    StudyError
        If no stay was tested on by both.
    """
    common, scores, hidden = np.intersect1d(known.stay_ids, new.stay_ids), [], set()
    if not len(common):
        raise StudyError(
            f"runs {known.run['run']!r} and {new.run['run']!r} have no common test stay; leave one of them out"
        )
    for made in (new, known):
        at, left = pd.Index(made.stay_ids).get_indexer(common), ~np.isin(made.stay_ids, common)
        scores.append(Scores(made.logits[at], made.truth[at]))
        for k in TOP:  # of all test stays it is told elsewhere how many are right
            right = Scores(made.logits, made.truth).in_top(k)[left]
            if disclosure.is_small(np.array([right.sum(), (~right).sum()]), mask_below).any():
                hidden.add(f"acc_at_{k}")
    table = split_effect(*({new.run["run"]: one} for one in scores), resamples, seed, mask_below)
    n, whole = disclosure.part(len(common), len(known.stay_ids), mask_below), len(known.stay_ids)
    said = f"{n} of the {whole:,} test stays of {style_of(known.run['run'])[0]} are test stays under both splits."
    return table[~table["metric"].isin(hidden)], said[0].upper() + said[1:]


def leakage_sentence(row, whom: str = "patients") -> str:
    """A sentence on a row of `split_effect`: does the model score higher where it knows the patients, or others?"""
    metric, amount = METRICS[row.metric], _amount(row)
    if row.p_holm < 0.05 and row.difference > 0:
        return f"{row.model} scores higher in {metric} where it knows the {whom} ({amount})."
    excluded = f"a gain above {row.upper:.3f} is excluded" if row.upper > 0 else "any gain is excluded"
    return f"{row.model}: no gain in {metric} from knowing the {whom} is shown ({amount}); {excluded}."


def time_gains(cost: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """By how many per cent training takes longer with twice the tokens, and with the larger model.

    `cost` and `sizes` are as `results.costs` and `results.sizes` return them.

    Returns
    -------
    DataFrame
        step and against (what the paper compares, "" if nothing like it), both in words; published and ours.

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
        rows.append((step, gain, theirs, ours))
    return pd.DataFrame(rows, columns=["step", "against", "published", "ours"])


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
        return few | {"sentence": f"{said}so few go to one side that the two counts can't be shown."}
    said += f"{counts['only_two_labels']:,} go to two labels and {counts['only_one_label']:,} to one"
    return counts | {"p": p, "sentence": f"{said} ({_p(p)})."}


def known_patients(known: pd.Series, stays: str, mask_below: int) -> tuple[dict, str]:
    """How many of the stays tested on are of a patient who also has a training stay: numbers, and a sentence.

    `known` says so of each stay (bool); `stays` is the sentence's word for them, such as "test stays".
    """
    n, whole, share = int(known.sum()), len(known), float(known.mean())
    told = not disclosure.tells_of_few(n, whole, mask_below)
    percent = f" ({100 * share:.0f} %)" * told
    said = f"{disclosure.part(n, whole, mask_below)} of {whole} {stays}{percent} are of a patient who is also in the training stays."
    return {"known_stays": n if told else None, "known_share": share if told else None}, said[0].upper() + said[1:]


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
    rows, gained = [], ["difference", "difference_lower", "difference_upper"]
    for stratum in ["all", *strata]:
        some = right if stratum == "all" else right[strata[stratum].to_numpy()]
        for run in some if len(some) else ():
            row = {"stratum": stratum, "stays": len(some), "run": run, **share(some[run].to_numpy())}
            if run != right.columns[0]:
                gain = some[run].astype(float) - some[right.columns[0]]
                reach = 1.96 * gain.std(ddof=0) / len(gain) ** 0.5
                row |= dict(zip(gained, gain.mean() + reach * np.array([0, -1, 1]), strict=True))
            rows.append(row)
    return pd.DataFrame(rows, columns=["stratum", "stays", "run", "value", "lower", "upper", *gained])
