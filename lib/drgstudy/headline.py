"""What the report's first screen says, by rule, from ``numbers.json`` alone, where small counts are masked already."""

from __future__ import annotations

import pandas as pd

from drgstudy import claims, findings
from drgstudy.names import BASES, in_full

_STAND_FOR = {"llama": "LLaMA-7B", "bert": "ClinicalBERT"}
_JUDGED = ["claim", "place", "family", "direction", "published", "bound", "unit", "value", "lower", "upper", "p", "verdict", "note"]  # fmt: skip


def verdicts(part: dict) -> list[dict]:
    """The verdicts on a paper's primary claims, or, where its list has none, on those of its abstract.

    Parameters
    ----------
    part : dict
        What `claims.judge` found, by claim, as the numbers of notebooks 14 and 29 hold it.

    Returns
    -------
    list of dict
        claim; verdict; and found: what was measured, with its interval, and what is published.
    """
    table = pd.DataFrame.from_dict(part, orient="index").reindex(columns=_JUDGED)
    table = table.reindex([claim for claim in claims.read().index if claim in table.index])
    chosen = table["family"] == "primary"
    table = table[chosen if chosen.any() else table["place"].str.contains("Abstract")]
    said = []
    for (_, claim), row in zip(table.iterrows(), claims.printed(table).to_dict("records"), strict=True):
        here = row["Here (95 % interval)"].replace("(", "(95 % interval ")
        found = claim["note"] if claim["verdict"] == claims.NOT_APPLICABLE else f"{here} here"
        found += "" if row["Published"] == "–" else f", {row['Published'].partition(' (')[0]} published"
        said.append({"claim": claim["claim"], "verdict": claim["verdict"], "found": found})
    return said


def said(numbers: dict) -> dict:
    """Everything that the first screen, and the pages’ own first lines, say of the numbers.

    Parameters
    ----------
    numbers : dict
        The content of ``numbers.json``.

    Returns
    -------
    dict
        By study's topic: verdicts, plainest and counts. Of the first study ranked, survive (sentences), scores (name and
        top-1 accuracy of each model, the best first) and words; of the second early_ranked and early_scores; and limits.
    """
    results, early = numbers.get("results", {}), numbers.get("early_results", {})
    judged = {
        topic: numbers[id]
        for topic, id in {"results": "claims", "early_cohort": "early_claims"}.items()
        if id in numbers
    }
    names = {run: model["name"] for run, model in results.get("models", {}).items()}
    scores = _scores(results.get("models", {}), results.get("table_1", {}))
    runs = {run: hours["hour 48"] for run, hours in early.get("table_2", {}).items() if "hour 48" in hours}
    early_scores = _scores(early.get("runs", {}), runs)
    return {
        "verdicts": {topic: verdicts(part["claims"]) for topic, part in judged.items()},
        "counts": {topic: part["sentences"][0] for topic, part in judged.items()},
        "plainest": plainest(numbers),
        "limits": limits(numbers),
        "scores": scores,
        "ranked": _ranked(scores),
        "survive": _survive(results),
        "early_scores": early_scores,
        "early_ranked": _ranked(early_scores),
        "words": " ".join(
            f"Without the strongest words the score of {names.get(run, run)} falls by {fall['strongest']:.2f}, without random "
            f"ones by {fall['random']:.2f}."
            for run, fall in numbers.get("why", {}).get("fall", {}).items()
        ),
    }


def percent(share: float | None) -> str:
    """A share in print; a dash where it is masked."""
    return "–" if share is None else f"{100 * share:.1f} %"


def _scores(models: dict, sets: dict) -> list[tuple[str, dict]]:
    """Name and top-1 accuracy (value, and lower and upper where there are any) of each run on all DRGs, the best first."""
    scores = {run: sets[run]["All DRGs"].get("acc_at_1", {}) for run in models if run in sets}
    shown = {run: score for run, score in scores.items() if score.get("value") is not None}
    return [
        (in_full(models[run]["name"]), shown[run]) for run in sorted(shown, key=lambda run: (-shown[run]["value"], run))
    ]


def _ranked(scores: list[tuple[str, dict]]) -> str:
    listed = ", ".join(f"{name} {percent(score['value'])}" for name, score in scores)
    return f"By top-1 accuracy: {listed}." if listed else ""


def _survive(results: dict) -> str:
    tests = [
        test for metrics in results.get("differences", {}).values() for test in metrics.values() if "p_holm" in test
    ]
    survive = sum(test["p_holm"] < 0.05 for test in tests)
    if not tests:
        return ""
    return (
        f"Of {len(tests)} differences between {results['models'][results['run']]['name']} and another model (six metrics "
        f"each), {survive} survive the correction for that many comparisons."
    )


def limits(numbers: dict) -> list[str]:
    """What a reader must know before believing any number: how many stays and trainings, and whose."""
    found, text, few, results = [], numbers["text"], "few", numbers.get("results", {})
    if results:
        trainings = numbers.get("seeds", {}).get("trainings", {}).values()
        seeds = {score["seed"] for scores in trainings for score in scores.values()}
        trained = f"trained from up to {len(seeds)} seeds" if len(seeds) > 1 else "trained once"
        train, test = (f"{text[key]:,.0f}" if key in text else few for key in ("train_stays", "test_stays"))
        found.append(f"DRG-LLaMA is rerun with {train} training stays and {test} test stays; each model was {trained}.")
        bases = {of: results["models"].get(of, {}).get("settings", {}).get("base") for of in _STAND_FOR}
        small = [f"{in_full(BASES[base])} for {_STAND_FOR[of]}" for of, base in bases.items() if base in BASES]
        found += [f"A small model stands for each large one: {' and '.join(small)}."] if small else []
    if "early_cohort" in numbers:
        flow = numbers["early_cohort"]["flow"]
        ms, apr = (few if flow[of][-1]["kept"] is None else f"{flow[of][-1]['kept']:,}" for of in ("ms", "apr"))
        found.append(
            f"Early DRG is rerun with {ms} stays in intensive care that have an MS-DRG, and {apr} that have an APR-DRG."
        )
    if any(part["kind"] == "synthetic" for part in numbers["dataset"].values()):
        found.append(
            "Patients and notes are invented. Labels follow real grouping rules, but no physician wrote a word: a result says "
            "what a method does with such notes, and nothing about MIMIC."
        )
        found += ["APR-DRGs are a surrogate, for no free grouper exists."] if "early_cohort" in numbers else []
    found.append("Settings and epochs are chosen on training stays that are kept back; test stays choose neither.")
    if "hardness" in numbers:
        found.append(
            "There is one exception: TF-IDF’s accuracy on test stays was used to judge how hard the hospital is (notebook 04)."
        )
    return found


def plainest(numbers: dict) -> dict[str, list[str]]:
    """How much the studies' models gain over the plainest way there is, whichever way it comes out; by study's topic.

    That is TF-IDF with logistic regression for accuracy, and for the case-mix index a guess that reads nothing.

    Parameters
    ----------
    numbers : dict
        The content of ``numbers.json``.
    """
    said, results = {"results": [], "early_cohort": []}, numbers.get("results", {})
    if "tfidf" in results.get("differences", {}):
        right = {run: results["table_1"][run]["All DRGs"].get("acc_at_1", {}) for run in ("tfidf", results["run"])}
        plain, ours = (percent(score.get("value")) for score in right.values())
        said["results"].append(
            f"{results['models']['tfidf']['name']} names {plain} of the test stays right, "
            f"{in_full(results['models'][results['run']]['name'])} {ours}. {results['differences']['tfidf']['acc_at_1']['sentence']}"
        )
    if found := numbers.get("trust", {}).get("against_guess", {}).get("top-1"):
        said["results"].append(_index("The case-mix index", found["model"], found["guess"], found["change"]))
    for system, hours in sorted(numbers.get("case_mix", {}).get("against_guess", {}).items(), reverse=True):
        hour, found = min(hours.items(), key=lambda item: int(item[0]))
        what = f"The case-mix index of {system.upper()}-DRGs after {hour} hours"
        said["early_cohort"].append(_index(what, found["models"], found["guess"], found["change"]))
    return said


def _index(what: str, models: dict, guess: dict, change: dict) -> str:
    """One sentence of an index by the models and by a guess that reads nothing; each has value, lower and upper."""
    nearer = findings.by_interval(
        change, "it can’t be told which is nearer", "the models are nearer", "the guess is nearer"
    )
    return (
        f"{what} is off by {models['value']:.1f} % with the models, and by {guess['value']:.1f} % with a guess that reads "
        f"nothing: {nearer} ({findings.points(change)})."
    )


def in_short(numbers: dict) -> str:
    """The result of both studies in a paragraph of Markdown, for README: what came out against the plainest, and the verdicts."""
    found = said(numbers)
    plain = found["plainest"]
    counts = [
        f"{paper[0].upper()}{paper[1:]}: {found['counts'][topic]}"
        for topic, paper in zip(plain, claims.PAPERS, strict=True)
        if topic in found["counts"]
    ]
    lines = [*plain["results"][:1], *plain["early_cohort"][:1], *counts]
    return "".join(f"- {line}\n" for line in lines)
