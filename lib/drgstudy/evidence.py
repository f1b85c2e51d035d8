"""What the papers claim, measured on this run's predictions, for `claims.judge`.

A claim is measured as a difference on the stays that are drawn (`bootstrap.Draws`), as one number where it was measured
once, or not at all: then a sentence says why.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from drgstudy import casemix, claims, disclosure, drgs, icu_cohort, published, results
from drgstudy.bootstrap import Draws, Measure
from drgstudy.flow import read_rows
from drgstudy.labels import TwoLabels
from drgstudy.metrics import Scores
from drgstudy.predictions import Predictions, read_folds
from drgstudy.study import Paths
from drgstudy.tables import hour_name

_NO_RUN, _FEW = "this profile names no run for it", "small counts of stays would follow from it"
_METRICS = {"f1": "macro_f1", "top1": "acc_at_1", "top5": "acc_at_5", "auc": "macro_auc"}


def _share(hits: np.ndarray, among: np.ndarray | bool = True) -> Measure:
    """The share of hits (bool, shape (n,)) among some of the stays."""
    among = np.broadcast_to(among, hits.shape)

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            return {"share": counts @ (hits & among) / (counts @ among)}

    return measure


def _on(at: np.ndarray, measure: Measure) -> Measure:
    """The measure of the stays at some places among all that are drawn."""
    return lambda counts: measure(counts[:, at])


def _told(mask_below: int, *right: np.ndarray, among: np.ndarray | bool = True) -> bool:
    """Whether it may be told how many stays are right (bool, shape (n,) each), of all and of those among some."""
    n, parts = right[0].size, [(each & some, ~each & some) for each in right for some in (True, among)]
    counts = [[of_them.sum(), others.sum()] for of_them, others in parts]
    return bool(disclosure.told(counts, mask_below, [(0, 0), (n, 0), (0, n)]).all())


def _by_drg(right: np.ndarray, truth: np.ndarray, k: int, of_shares) -> Measure:
    """A number that `of_shares` computes from the shares of `right` of each DRG: (rows, k), NaN of one without a stay."""
    drg = csr_array((np.ones(truth.size), (truth, np.arange(truth.size))), shape=(k, truth.size))

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            return {"number": of_shares((drg @ (counts * right).T / (drg @ counts.T)).T)}

    return measure


def _median(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The median of the values (k,) of each row's places (rows, k); NaN for a row without any."""
    return pd.DataFrame(np.where(where, values, np.nan)).median(axis=1).to_numpy()


def drg_llama(
    made: dict[str, Predictions], stays: pd.DataFrame, resamples: int, seed: int, mask_below: int = 0
) -> dict[str, pd.Series | float | str]:
    """What DRG-LLaMA claims, measured: for `claims.judge`.

    Parameters
    ----------
    made : dict of role to Predictions
        Of the same test stays. llama, the run that stands for DRG-LLaMA; and if they are there: bert, caml, two (two
        labels), larger and smaller, longer and shorter, which differ in size and in tokens alone.
    stays : DataFrame
        As `cohort.STAYS`.
    resamples, seed, mask_below : int

    Notes
    -----
    The test stays are resampled. Medians and shares over DRGs are computed anew for the stays that are drawn. Two labels
    are put together by the rule by which the paper's supplement scores them. The training notes' mean length is taken as
    it is: it is far more certain than that of the test notes.
    """
    llama = made["llama"]
    n, truth, labels, split = len(llama.truth), llama.truth, llama.labels, llama.run["split"]
    draws, scored, found = Draws(n, resamples, seed), {}, {}
    scores = Scores(llama.logits, truth)

    def of(role: str) -> pd.DataFrame:
        run = made[role].run["run"]  # one run may have several roles
        if run not in scored:
            one = scores if role == "llama" else Scores(made[role].logits, truth)
            scored[run] = draws.evaluate(one.evaluate)
        return scored[run]

    def share(right: np.ndarray, among: np.ndarray | bool = True) -> list[pd.DataFrame]:
        return [draws.evaluate(_share(right, among))]

    pairs = {"llama-bert": ("llama", "bert"), "llama-caml": ("llama", "caml"), "bert-caml": ("bert", "caml")}
    pairs |= {"larger": ("larger", "smaller"), "longer": ("longer", "shorter")}
    for claim in claims.read().query("paper == 'DRG-LLaMA'").index:
        pair, _, metric = claim.rpartition("-")
        if pair in pairs and metric in _METRICS:
            found[claim] = _NO_RUN
            if made.keys() >= {*pairs[pair]}:
                effects = draws.difference(*([of(role)] for role in pairs[pair]))
                values = [of(role).loc[0, _METRICS[metric]] for role in pairs[pair]]
                few = metric.startswith("top") and disclosure.shares(pd.Series(values), n, mask_below).isna().any()
                found[claim] = _FEW if few else effects.loc[_METRICS[metric]]
    models = pd.concat([of(role)["macro_auc"] for role in ("llama", "bert", "caml") if role in made], axis=1)
    found["auc-high"] = draws.difference([models.min(axis=1).to_frame("auc")]).loc["auc"]

    right = scores.in_top(1)
    found |= dict.fromkeys(["base-easier", "cc-easier", "cc-base-level", "two-level"], _NO_RUN)
    if "two" in made:
        two = made["two"]
        space = TwoLabels(stays["drg_v34"], stays.loc[stays[split] == "train", "drg_v34"])
        parts = space.encode(labels[truth]).T
        base, cc = (
            said.argmax(axis=1) == part
            for said, part in zip(np.split(two.outputs, [space.n_bases], 1), parts, strict=True)
        )
        drg = space.infer(two.outputs, "mapped") == labels[truth]
        contrasts = {
            "base-easier": (base, drg),
            "cc-easier": (cc, drg),
            "cc-base-level": (cc, base),
            "two-level": (drg, right),
        }
        for claim, (above, below) in contrasts.items():
            told = _told(mask_below, above, below)
            found[claim] = draws.difference(share(above), share(below)).loc["share"] if told else _FEW
    sets = results.drg_sets(labels, stays["drg_v34"].value_counts(), [30])
    if "Top 30 DRGs" not in sets:
        found["frequent-easier"] = "the cohort has no more than 30 DRGs"
    else:
        top = np.isin(truth, sets["Top 30 DRGs"])
        told = _told(mask_below, right, among=top)
        found["frequent-easier"] = draws.difference(share(right, top), share(right)).loc["share"] if told else _FEW

    k = len(labels)
    cases = stays.loc[stays[split] == "train", "drg_v34"].value_counts().reindex(labels, fill_value=0).to_numpy()
    measures = [lambda shares: _median(cases, shares > 0.8), lambda shares: _median(cases, shares < 0.2)]
    ends = [draws.evaluate(_by_drg(scores.in_top(5), truth, k, measure)) for measure in measures]
    medians = [end.loc[0, "number"] for end in ends]
    found["training-cases"] = draws.difference([ends[0]], [ends[1]]).loc["number"]
    if np.isnan(medians).any():
        found["training-cases"] = "no DRG has a top-5 accuracy above 80 %, or none has one below 20 %"
    elif disclosure.is_small(np.array(medians), mask_below).any():
        found["training-cases"] = _FEW
    surgical = drgs.v34().loc[labels, "type"].eq("surgical").to_numpy()
    always = draws.evaluate(_by_drg(right, truth, k, lambda shares: _ratio((shares == 1) & surgical, shares == 1)))
    found["surgical-right"] = draws.difference([always]).loc["number"]
    if np.isnan(always.loc[0, "number"]):
        found["surgical-right"] = "no DRG is always named right"

    words = stays.set_index("stay_id").loc[llama.stay_ids, "words"].to_numpy(float)
    trained = stays.loc[stays[split] == "train", "words"].mean()
    found["words-level"] = draws.difference(
        [draws.evaluate(lambda counts: {"longer": counts @ words / counts.sum(axis=1) / trained - 1})]
    ).loc["longer"]
    return found | _times(made)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """How many of each row's `whole` are in `part`: (rows,), NaN where it is empty."""
    with np.errstate(invalid="ignore"):
        return part.sum(axis=1) / whole.sum(axis=1)


def _times(made: dict[str, Predictions]) -> dict[str, float | str]:
    """The claims on training time: by which share it grows, and by how many minutes DRG-LLaMA's is the longest.

    A run's time is its own: the frozen model's pass over all texts, which runs share, is in none.
    """
    found, cost = dict.fromkeys(claims.TIMES, _NO_RUN), {role: run.run["cost"] for role, run in made.items()}
    took = pd.DataFrame(cost).reindex(["fit_seconds", "train_seconds"]).astype(float).T
    for claim, above, below in ("longer-costs", "longer", "shorter"), ("larger-costs", "larger", "smaller"):
        if {above, below} <= made.keys():
            found[claim] = float(took.loc[above, "train_seconds"] / took.loc[below, "train_seconds"] - 1)
    if {"bert", "caml"} <= made.keys():
        minutes = took["fit_seconds"] / 60
        found["llama-slower"] = float(minutes["llama"] - minutes[["bert", "caml"]].max())
    return {claim: "no time of training is on record" if value != value else value for claim, value in found.items()}


def early(
    paths: Paths, runs: dict[str, str], resamples: int, seed: int, mask_below: int = 0
) -> dict[str, pd.Series | float | str]:
    """What the early-DRG paper claims, measured: for `claims.judge`.

    Parameters
    ----------
    paths : Paths
        Of the early-DRG study.
    runs : dict of role to run
        ms and apr (CAML on notes), ms_measured and apr_measured (measurements), ms_bert, ms_weight and apr_weight (the
        weight as a number); "" where the profile has none.
    resamples, seed, mask_below : int

    Notes
    -----
    The hold-out stays of both systems are resampled together, so that claims about both are measured on the same draws;
    the models of a run are drawn too. Case-mix errors are of each patient's first stay, and means over the models.
    """
    held = {}
    for system in drgs.SYSTEMS:
        stays = read_rows(paths.cohort(system), icu_cohort.STAYS)
        held[system] = stays[stays["fold"] == 0]
    ids = np.union1d(*(part["stay_id"] for part in held.values()))
    draws, found = Draws(len(ids), resamples, seed), {}
    at = {system: np.searchsorted(ids, part["stay_id"]) for system, part in held.items()}
    named = [role for role in runs if not role.endswith("weight")]
    scores = {
        role: [Scores(p.logits, p.truth) for p in read_folds(paths, runs[role])] if runs[role] else [] for role in named
    }
    right = {role: [model.in_top(1) for model in models] for role, models in scores.items()}
    scored = {}

    def of(role: str) -> list[pd.DataFrame]:
        if role not in scored:
            place = at[role.partition("_")[0]]
            scored[role] = [draws.evaluate(_on(place, model.evaluate)) for model in scores[role]]
        return scored[role]

    pairs = {f"notes-{system}": (system, f"{system}_measured", "acc_at_1") for system in drgs.SYSTEMS}
    pairs |= {"bert-early": ("ms_bert", "ms", "macro_f1"), "ms-apr": ("ms", "apr", "acc_at_1")}
    for pair, (above, below, f1) in pairs.items():
        by_auc = {f"{pair}-auc": "macro_auc"} if pair != "ms-apr" else {}
        for claim, metric in (by_auc | {f"{pair}-f1": f1}).items():
            answers = right[above] + right[below]
            if not (right[above] and right[below]):
                found[claim] = _NO_RUN
            elif metric == "acc_at_1" and not all(_told(mask_below, one) for one in answers):
                found[claim] = _FEW
            else:
                found[claim] = draws.difference(of(above), of(below)).loc[metric]

    billed = held["ms"]["drg"]
    labels = np.unique(billed)
    sets = results.drg_sets(labels, billed.value_counts(), [30], drgs.fiscal_2013("ms")["mdc"])
    for claim, name in ("circulatory-easier", "MDC 05"), ("early-frequent-easier", "Top 30 DRGs"):
        among = billed.isin(labels[sets.get(name, [])]).to_numpy()
        if name not in sets or among.all():
            found[claim] = f"{name} hold all hold-out stays, or none"
        elif not all(_told(mask_below, one, among=among) for one in right["ms"]):
            found[claim] = _FEW
        else:
            some, whole = (
                [draws.evaluate(_on(at["ms"], _share(one, part))) for one in right["ms"]] for part in (among, True)
            )
            found[claim] = draws.difference(some, whole).loc["share"]
    return found | _case_mix(paths, runs, held, at, draws) | {"payment": _payment()}


def _case_mix(
    paths: Paths, runs: dict[str, str], held: dict[str, pd.DataFrame], at: dict[str, np.ndarray], draws: Draws
) -> dict[str, pd.Series | str]:
    """The claims on relative weights, of each patient's first hold-out stay."""
    found, errors = {}, {}
    for system, part in held.items():
        first = part["first_visit"].to_numpy()
        true, ids, place = part.loc[first, "weight"].to_numpy(), part.loc[first, "stay_id"], at[system][first]
        for hour in (-24, -6, 6, 24, 48):
            if any((paths.runs / runs[system]).glob(f"fold-*/hour{hour:+03d}")):
                guesses = results.weights_by_drg(paths, runs[system], ids, hour)
                measures = [_on(place, casemix.cmi_measure(true, guess)) for guess in guesses]
                errors[system, hour] = [draws.evaluate(measure) for measure in measures]
        found[f"regression-{system}"] = _NO_RUN
        if runs[f"{system}_weight"]:
            off = np.abs(results.weights_by_regression(paths, runs[f"{system}_weight"], ids) - true)  # (models, n)
            measures = [_on(place, lambda counts, one=one: {"mae": counts @ one / counts.sum(axis=1)}) for one in off]
            found[f"regression-{system}"] = draws.difference([draws.evaluate(each) for each in measures]).loc["mae"]
    asked = {"cmi-ms-apr": ("error", ("ms", 24), ("apr", 24))}
    for system in held:
        asked[f"cmi-{system}-24"] = "error", (system, 24)
        asked[f"cmi-admission-{system}"] = "error", (system, 6), (system, -6)
        asked[f"cmi-48-{system}"] = "error", (system, 48), (system, 24)
        asked[f"early-low-{system}"] = "signed", (system, -24)
    for claim, (number, *sides) in asked.items():
        missing = sorted({hour_name(hour) for _, hour in set(sides) - errors.keys()})
        found[claim] = f"this profile asks no model at hour {' and '.join(missing)}"
        if not missing:
            found[claim] = draws.difference(*(errors[side] for side in sides)).loc[number]
    return found


def _payment() -> float:
    """By how many dollars the error of the paper's example moves the payment: arithmetic, whatever the predictions."""
    example = published.table("Text", "Early DRG").query("drg_set == 'Payment example'").set_index("metric")["value"]
    true = np.full(int(example["n_stays"]), example["cmi"])
    guess = true[None] * (1 + example["cmi_error_percent"] / 100)
    paid = casemix.payments(true, {0: guess}, np.arange(true.size), example["base_rate_dollars"]).iloc[0]
    return float(paid["dollars_predicted"] - paid["dollars_true"])
