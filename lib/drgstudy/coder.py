"""How much work can a model take off a coder? Sets of DRGs with a guaranteed coverage, and the price of answering alone.

A *set* holds the DRGs whose probability reaches a limit. The limit is found on calibration stays, of which the DRG is
known: of new stays like these, at least the share `level` have their DRG in their set (split conformal prediction).
Limits and thresholds are found on one half of the stays and judged on the other, and the other way round, so no stay
has a say in its own.

Throughout, `logits` (float) has shape (n stays, k labels) and `truth` (int), of shape (n,), holds label indices.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from mapie.conformity_scores import LACConformityScore
from scipy.special import softmax
from scipy.stats import betabinom

from drgstudy import disclosure
from drgstudy.bootstrap import resample_counts
from drgstudy.calibration import coverage, top1
from drgstudy.metrics import share
from drgstudy.study import StudyError

TOLERANCE = 1e-8  # MAPIE's, by which a probability may miss its limit
WAYS = ("one limit", "by DRG")
HALVES = ("first", "second")


def limits(
    logits: np.ndarray, truth: np.ndarray, level: float, fewest: float = np.inf, pools: np.ndarray | None = None
) -> np.ndarray:
    """The least probability at which each DRG belongs to a set, from calibration stays.

    Parameters
    ----------
    logits, truth : numpy.ndarray
        Of the calibration stays.
    level : float
        The coverage asked for, above 0 and below 1.
    fewest : float
        A DRG with at least so many calibration stays, and enough for `level`, has a limit of its own, and the guarantee
        holds for its stays alone. By default none has.
    pools : numpy.ndarray of int, shape (k,), optional
        The other DRGs share a limit, and a guarantee, with those of the same number. By default all share one.

    Returns
    -------
    numpy.ndarray of float64, shape (k,)
        0, for a DRG whose stays are too few even with those of its pool: it is in every set.

    Raises
    ------
    StudyError
        If `level` is no share between 0 and 1, or as `calibration.top1`.

    Notes
    -----
    Which DRGs have enough stays for a limit of their own is seen on the calibration stays themselves, so the guarantee of a
    pool holds nearly, not exactly.

    Source: Sadinle, Lei and Wasserman 2019 (the sets, and limits by class), through MAPIE's conformity score; its
    classifiers want an estimator with `fit`, and have no limits by class.
    """
    if not 0 < level < 1:
        raise StudyError(f"parameter level is {level:g}; give a share above 0 and below 1, e.g. 0.9")
    top1(logits, truth)  # refuses what is no logits
    n_labels, conformity = logits.shape[1], LACConformityScore()
    scores = conformity.get_conformity_scores(truth, _probabilities(logits), y_enc=truth)  # (n, 1)
    stays = np.bincount(truth, minlength=n_labels)
    own = (stays >= fewest) & (_rank(stays, level) <= stays)
    group = np.where(own, np.arange(n_labels), n_labels + (0 if pools is None else pools))
    found = np.zeros(n_labels)
    for each in np.unique(group):
        some = scores[group[truth] == each]
        if _rank(len(some), level) <= len(some):
            (worst,) = conformity.get_conformity_score_quantiles(some, np.array([1 - level]), cv="prefit")
            found[group == each] = 1 - worst - TOLERANCE
    return found


def sets(logits: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Which DRGs are in the set of each stay: bool, shape (n, k); `least` is what `limits` returns."""
    return _probabilities(logits) >= least


def halves(n: int, seed: int) -> np.ndarray:
    """The half of each of n stays, 0 or 1, at random: int, shape (n,)."""
    if n < 2:
        raise StudyError(f"{n} stays can't be halved to find limits on one half; give at least 2")
    return np.random.default_rng(seed).permutation(n) % 2


def crossed(logits: np.ndarray, truth: np.ndarray, half: np.ndarray, level: float, *pooling) -> np.ndarray:
    """The set of each stay, by limits from the other half (0 or 1, (n,)): bool, (n, k); `pooling` as for `limits`."""
    inside = np.empty(logits.shape, bool)
    for side in (0, 1):
        least = limits(logits[half != side], truth[half != side], level, *pooling)
        inside[half == side] = sets(logits[half == side], least)
    return inside


def judged(logits: np.ndarray, truth: np.ndarray, levels: list[float], seed: int, mask_below: int = 0) -> pd.DataFrame:
    """Coverage of each half and size of the sets that one limit for all DRGs makes; NaN where a small count would follow.

    The coverage of both halves together is near the level whatever the model: what one half gains the other loses.

    Returns
    -------
    DataFrame, one row for each level
        level; first, first_lower, first_upper, second, …: the coverage of each half with its 95 % Wilson interval;
        chance_lower and chance_upper, between which the coverage of a half lies in 95 of 100 draws of exchangeable
        stays; size (DRGs in a set, mean) with size_lower and size_upper (95 %, normal); one, the share of the stays
        with one DRG in their set; one_right, how many of these are right; none, the share with an empty set.

    Notes
    -----
    Source: Angelopoulos and Bates 2023 (the coverage of new stays, given calibration stays, is beta-binomial).
    """
    rows, half = [], halves(len(truth), seed)
    for level in levels:
        inside = crossed(logits, truth, half, level)
        covered, size = inside[np.arange(len(truth)), truth], inside.sum(axis=1)
        row = {"level": level}
        for side, name in enumerate(HALVES):
            found = share(covered[half == side])
            row |= {name: found["value"]} | {f"{name}_{end}": found[end] for end in ("lower", "upper")}
        row |= dict(zip(("chance_lower", "chance_upper"), by_chance(*np.bincount(half), level), strict=True))
        row |= _mean(size) | {"one": (size == 1).mean(), "none": (size == 0).mean()}
        row["one_right"] = covered[size == 1].mean() if (size == 1).any() else np.nan
        parts = np.bincount(2 * size.clip(max=2) + covered, minlength=6)  # none, one and several, wrong and right
        rows.append(row | {"told": not disclosure.is_small(parts, mask_below).any()})
    table = pd.DataFrame(rows)
    told = table.pop("told")
    empty = (
        table.loc[told, "none"] * len(truth)
    ).round()  # with a higher level fewer sets are empty, of the same stays
    told[told] = disclosure.told(empty, mask_below)
    table.loc[~told, ["one", "one_right", "none"]] = np.nan
    for side, name in enumerate(HALVES):
        hide = disclosure.shares(table[name], (half == side).sum(), mask_below).isna()
        table.loc[hide, [name, f"{name}_lower", f"{name}_upper"]] = np.nan
    return table


def by_chance(calibration: int, tested: int, level: float) -> tuple[float, float]:
    """Between which shares the coverage of `tested` stays lies in 95 of 100 draws, given limits of `calibration` stays."""
    rank = _rank(calibration, level)
    if rank > calibration:
        return 1.0, 1.0
    lower, upper = betabinom(tested, rank, calibration + 1 - rank).ppf([0.025, 0.975]) / tested
    return float(lower), float(upper)


def by_size(
    logits: np.ndarray,
    truth: np.ndarray,
    cases: np.ndarray,
    edges: list[int],
    level: float,
    fewest: float,
    seed: int,
    mask_below: int = 0,
) -> pd.DataFrame:
    """Coverage and size of the sets by the size of a stay's DRG, with one limit for all DRGs and with limits by DRG.

    A DRG with too few calibration stays for a limit of its own shares one with the others of its group that have too
    few. The groups follow from the training stays, and owe nothing to the calibration stays.

    Parameters
    ----------
    cases : numpy.ndarray of int, shape (k,)
        Training stays of each label.
    edges : list of int
        Training stays at which a new group begins, ascending, above 0.
    level, fewest
        As for `limits`.
    seed : int
        Of the halves.

    Returns
    -------
    DataFrame, one row for each of `WAYS` and each group that has stays
        way, group ("0–9"), drgs (labels of the group), own (those of them that have their own limit in both halves),
        stays, coverage with lower and upper (95 %, Wilson), size with size_lower and size_upper (95 %, normal). NaN for
        what would give a small count away.

    Raises
    ------
    StudyError
        If the edges do not ascend from above 0.
    """
    if not edges or min(edges) < 1 or edges != sorted(set(edges)):
        raise StudyError(f"parameter sizes is {edges}; give ascending numbers of training stays, e.g. [10, 100]")
    names = [f"{a}–{b - 1}" if a < b - 1 else f"{a}" for a, b in zip([0, *edges], edges, strict=False)]
    names = np.array([*names, f"{edges[-1]} or more"])
    group, half = np.digitize(cases, edges), halves(len(truth), seed)
    counts = np.array([np.bincount(truth[half == side], minlength=len(cases)) for side in (0, 1)])
    own = ((counts >= fewest) & (_rank(counts, level) <= counts)).all(axis=0)
    rows = []
    for way, pooling in zip(WAYS, ((), (fewest, group)), strict=True):
        inside = crossed(logits, truth, half, level, *pooling)
        covered, size = inside[np.arange(len(truth)), truth], inside.sum(axis=1)
        for i in np.unique(group[truth]):
            at, labels = group[truth] == i, group == i
            found = share(covered[at])
            row = {"way": way, "group": names[i], "drgs": labels.sum(), "own": own[labels].sum() * (way == "by DRG")}
            row |= {"stays": at.sum(), "coverage": found.pop("value")} | found | _mean(size[at])
            rows.append(row)
    table = pd.DataFrame(rows)
    return pd.concat([_masked(part, mask_below) for _, part in table.groupby("way", sort=False)], ignore_index=True)


def _masked(table: pd.DataFrame, mask_below: int) -> pd.DataFrame:
    """The rows of one way, of which stays and covered stays add up to numbers that are known."""
    stays, everyone = table["stays"].to_numpy(), [np.ones(len(table), bool)]
    covered = (table["coverage"] * stays).round().astype(int).to_numpy()
    few = disclosure.hidden(stays, mask_below, everyone)
    hide = few | np.any([disclosure.hidden(part, mask_below, everyone) for part in (covered, stays - covered)], axis=0)
    table = table.astype({"stays": float})
    table.loc[hide, "coverage":] = np.nan
    table.loc[few, "stays"] = np.nan
    return table


def costs(
    logits: np.ndarray, truth: np.ndarray, weights: np.ndarray, minutes_per_stay: float, base_payment: float
) -> pd.DataFrame:
    """What it saves and what it misbills to let a model answer the stays it is surest of, and a coder the others.

    Parameters
    ----------
    weights : numpy.ndarray of float, shape (k,)
        The relative weight of each label.
    minutes_per_stay : float
        A coder's minutes for a stay.
    base_payment : float
        Dollars for a relative weight of 1.

    Returns
    -------
    DataFrame, one row for each share of the stays that the model can answer, the smallest first
        threshold, coverage and accuracy, as of `calibration.coverage`; and for 100 stays, answered or not: minutes
        (saved) and dollars (misbilled: too much and too little add up).
    """
    confidence, hit = top1(logits, truth)
    off, order = _off(logits, truth, weights), np.argsort(-confidence)
    curve = coverage(confidence, hit)
    total = np.cumsum(off[order])[(curve["coverage"] * len(hit)).round().astype(int) - 1]
    per_100 = {"minutes": 100 * minutes_per_stay * curve["coverage"], "dollars": 100 * base_payment * total / len(hit)}
    return curve.assign(**per_100)


def answered(
    logits: np.ndarray,
    truth: np.ndarray,
    weights: np.ndarray,
    minutes_per_stay: float,
    dollars_per_minute: float,
    base_payment: float,
    resamples: int,
    seed: int,
    mask_below: int = 0,
) -> dict[str, float]:
    """Let the model answer from that confidence on at which most is left over, found on one half, judged on the other.

    What is left over is the price of the minutes saved less the dollars misbilled.

    Parameters
    ----------
    dollars_per_minute : float
        Price of a coder's minute.

    Returns
    -------
    dict of str to float
        share, of the stays that are answered, and accuracy among them; and for 100 stays, answered or not: minutes
        (saved), saved (dollars of these), misbilled (dollars) and left, with lower and upper (95 % over resamples of
        the stays). All NaN if few answered stays are right, or wrong, or few of the others.
    """
    half = halves(len(truth), seed)
    confidence, hit = top1(logits, truth)
    done = np.zeros(len(truth), bool)
    for side in (0, 1):
        curve = costs(logits[half != side], truth[half != side], weights, minutes_per_stay, base_payment)
        left = (dollars_per_minute * curve["minutes"] - curve["dollars"]).to_numpy()
        from_all = [*curve["threshold"].iloc[:-1], 0]  # where all stays of one half are answered, all of the other are
        least = from_all[left.argmax()] if left.max() > 0 else np.inf
        done |= (half == side) & (confidence >= least)
    minutes, lost = 100 * minutes_per_stay * done, 100 * base_payment * _off(logits, truth, weights) * done
    left = dollars_per_minute * minutes - lost
    lower, upper = np.quantile(resample_counts(len(left), resamples, seed) @ left / len(left), [0.025, 0.975])
    found = {"share": done.mean(), "accuracy": hit[done].mean() if done.any() else np.nan, "minutes": minutes.mean()}
    found |= {"saved": dollars_per_minute * minutes.mean(), "misbilled": lost.mean()}
    found |= {"left": left.mean(), "lower": lower, "upper": upper}
    right, everyone = (done & hit).sum(), (hit.sum(), (~hit).sum())
    told = disclosure.told([(right, done.sum() - right)], mask_below, [(0, 0), everyone])[0]
    return {name: float(value) if told else np.nan for name, value in found.items()}


def worth(curve: pd.DataFrame, shares: list[float]) -> pd.DataFrame:
    """From which price of a minute on it pays to let the model answer these shares of the stays: their rows of `costs`.

    Returns
    -------
    DataFrame, one row for each share
        share, then the columns of `curve` at the most stays up to it, and price, in dollars a minute.
    """
    at = curve.set_index("coverage", drop=False).reindex(shares, method="ffill", tolerance=0.05).reset_index(drop=True)
    return at.assign(share=shares, price=at["dollars"] / at["minutes"])


def set_sentences(name: str, level: float, sets: pd.DataFrame, sizes: pd.DataFrame) -> list[str]:
    """What a model's sets promise and hold; `sets` and `sizes` are what `judged` and `by_size` return for `level`."""
    row, said = sets.set_index("level").loc[level], []
    if row[list(HALVES)].notna().all():
        fits = row[list(HALVES)].between(row["chance_lower"], row["chance_upper"]).all()
        said.append(
            f"{name}’s sets should hold the right DRG of {100 * level:g} % of the stays. They hold that of "
            f"{100 * row['first']:.1f} % in one half and of {100 * row['second']:.1f} % in the other, "
            f"{'as' if fits else 'which is not what'} chance allows ({100 * row['chance_lower']:.1f} to "
            f"{100 * row['chance_upper']:.1f} %)."
        )
    said.append(f"A set holds {row['size']:.1f} DRGs on average.")
    if row["one"] == row["one"]:
        said[-1] += f" {100 * row['one']:.1f} % of the sets hold one DRG alone, {100 * row['none']:.1f} % none."
    one, own = (sizes[sizes["way"] == way].iloc[0] for way in WAYS)
    if one["coverage"] == one["coverage"] and own["coverage"] == own["coverage"]:
        said.append(
            f"Of the stays whose DRG has {one['group']} training stays, the sets hold the right DRG in "
            f"{100 * one['coverage']:.0f} % with one limit for all DRGs, and in {100 * own['coverage']:.0f} % with limits by DRG; "
            f"these sets hold {own['size']:.1f} DRGs instead of {one['size']:.1f}."
        )
    return said


def alone_sentences(name: str, alone: pd.Series, prices: pd.DataFrame, price: float) -> list[str]:
    """What it is worth to let a model answer alone, at `price` dollars a minute and from which price on.

    `alone` and `prices` are what `answered` and `worth` return.
    """
    said = []
    if alone["share"] == 0:
        said.append(f"At ${price:,.2f} a minute {name} would answer no stay without a coder.")
    elif alone["share"] > 0:
        sure = "" if alone["lower"] > 0 or alone["upper"] < 0 else ", which can’t be told from nothing"
        said.append(
            f"At ${price:,.2f} a minute {name} would answer {100 * alone['share']:.1f} % of the stays without a coder. In 100 stays that "
            f"saves {alone['minutes']:,.0f} minutes, worth ${alone['saved']:,.0f}, and misbills ${alone['misbilled']:,.0f}. "
            f"It {'gains' if alone['left'] > 0 else 'loses'} ${abs(alone['left']):,.0f}{sure}."
        )
    told = prices.dropna(subset="price")
    if len(told):
        each = ", ".join(f"${row.price:,.2f} for {100 * row.share:g} %" for row in told.itertuples())
        said.append(
            f"Letting it answer its surest stays without a coder pays from these prices of a minute on: {each} of the stays."
        )
    return said


def _probabilities(logits: np.ndarray) -> np.ndarray:
    return softmax(np.asarray(logits, np.float64), axis=1)


def _rank(n, level: float):
    """Which of n scores, by size, is the limit's; above n if they are too few. Rounded as by MAPIE."""
    return np.ceil((np.asarray(n) + 1) * (1 - (1 - level)))


def _off(logits: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How far the weight of the top-1 DRG is from the true one's: (n,)."""
    return np.abs(weights[logits.argmax(axis=1)] - weights[truth])


def _mean(size: np.ndarray) -> dict[str, float]:
    reach = 1.96 * size.std() / len(size) ** 0.5
    return {"size": size.mean(), "size_lower": size.mean() - reach, "size_upper": size.mean() + reach}
