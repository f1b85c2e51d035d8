"""What is said of case mix, of weights and of trust, in sentences made by rule from their tables."""

from __future__ import annotations

import pandas as pd

from drgstudy import published
from drgstudy.tables import hour_name, signed, spread


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
        f"stays below {below:g} % from hour {hour_name(since[0])} on"
        if len(since)
        else f"is still {below:g} % or more at the last hour"
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
        than = by_interval(gain, "can’t be told from it", "are nearer", "are farther off")
        against.append(f"the models of hour {hour} {than} ({points(gain)})")
    last, sizes, hidden = found["paid"].set_index("hour").loc[later], found["sizes"], found["hidden"]
    missed, cohort = last["dollars_predicted"] - last["dollars_true"], sizes["cohort"].iloc[0]
    whole = f"the cohort’s {cohort:,.0f} stays" if cohort == cohort else "the cohort"
    repeats = f"; those above {cohort:,.0f} only repeat its stays" if sizes["size"].max() > cohort else ""
    return [
        f"With the notes of {earlier} hours the case-mix index is off by {off[earlier]} %, with those of {later} hours by "
        f"{off[later]} % (mean and SD over the models; published at 24 hours: {theirs} %). Resampled test cohorts give "
        f"{span[earlier]} % and {span[later]} % (95 %); {verdict} ({points(change)}).",
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


def undiagnosed_sentence(hour: int, effect: pd.DataFrame) -> str:
    """How far off the case-mix index is without the admitting diagnosis: `casemix.change_by_hour` from with it to without."""
    change, off = effect.loc["change"], effect["value"]
    verdict = by_interval(
        change, ", and it can’t be told whether that matters", ", which is nearer", ", which is farther off"
    )
    return (
        f"At hour {hour_name(hour)} the index is off by {off['earlier']:.1f} % with the admitting diagnosis and by "
        f"{off['later']:.1f} % without it{verdict} ({points(change)})."
    )


def by_interval(row, both: str, below: str, above: str) -> str:
    """One of three verdicts: the 95 % interval of `row` (lower, upper) holds zero, lies below it, or above it."""
    return below if row["upper"] < 0 else above if row["lower"] > 0 else both


def points(row) -> str:
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
        verdict = by_interval(row, "can’t be told from", "is nearer than", "is farther off than")
        said.append(
            f"The weight that the regression predicts {verdict} {words[way]}: it is off by {ours['mae']:.2f} on average, against "
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


def trust_sentences(
    run: str,
    name: str,
    calibrated: pd.DataFrame,
    answered: pd.DataFrame,
    mix: pd.DataFrame,
    against: dict[str, pd.DataFrame],
) -> list[str]:
    """Does a model know when it is right, how much may it do alone, and what would its errors cost? In sentences.

    Parameters
    ----------
    run, name : str
        Its key, and what it is called.
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
    found = [_calibration_sentence(name, calibrated.loc[run].astype(float))]
    for part in answered[answered["run"] == run].dropna(subset="value").itertuples():
        right = f"makes {100 * part.target:g} % of its answers right on one half of the stays"
        if part.threshold != part.threshold:
            found.append(f"No threshold {right}: a coder codes every stay.")
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
        (run, "top-1"): f"By {name}’s top-1 weights",
        (run, "expected"): f"By {name}’s expected weights",
        ("Training mean", "expected"): "By the mean of the training stays, which reads nothing,",
    }
    for guess, words in whose.items():
        rows = money.loc[guess]
        total, off = rows.loc["dollars_per_100", "value"], rows.loc["error_percent"]
        sign = "can't be told from zero" if off["lower"] <= 0 <= off["upper"] else "more than chance would give"
        found.append(
            f"{words} the hospital expects ${abs(total):,.0f} too {'little' if total < 0 else 'much'} for 100 stays "
            f"({off['value']:+.1f} %, {sign}); a single stay is off by ${rows.loc['mae_dollars', 'value']:,.0f}."
        )
    nearer = [
        f"by {way} weights {by_interval(row, 'can’t be told from it', 'is nearer', 'is farther off')} ({points(row)})"
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
    leans = by_interval(sure, "", "too modest", "overconfident")
    error, chance = row.loc["ece", "value"], row.loc["ece_by_chance", "upper"]
    beyond, link, why = error > chance, "and", ""
    if beyond != bool(leans):
        link, why = "but", ", which sees gaps that cancel," if beyond else ", which needs more stays to show that,"
    return (
        f"{name} is right in {right:.0f} % of the stays and on average {confident:.0f} % sure: it "
        f"{f'is {leans}' if leans else 'leans to neither side beyond chance'} ({points(sure)}), {link} its calibration error of "
        f"{error:.3f}{why} is {'more than' if beyond else 'within what'} chance gives (up to {chance:.3f}); with a temperature "
        f"it is {row.loc['ece_tempered', 'value']:.3f}."
    )
