"""The papers' claims (``data/reference/claims.csv``), judged by the rule of docs/claims.md on what `evidence` measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from drgstudy.bootstrap import normal_p
from drgstudy.flow import checked
from drgstudy.study import REFERENCE, Paths, StudyError, read_json
from drgstudy.tables import p_values

PAPERS = ("DRG-LLaMA", "early DRG")
VERDICTS = ("seen here", "contradicted here", "undecided", "not applicable here")
SEEN, CONTRADICTED, UNDECIDED, NOT_APPLICABLE = VERDICTS
CLAIMS = pa.DataFrameSchema(
    {
        "id": pa.Column("str", unique=True),
        "paper": pa.Column("str", pa.Check.isin(PAPERS)),
        "place": pa.Column("str"),
        "claim": pa.Column("str"),
        "family": pa.Column("str", pa.Check.isin(["primary", "secondary"])),
        "direction": pa.Column("str", pa.Check.isin(["above", "below", "level"])),
        "published": pa.Column("float64", nullable=True),
        "margin": pa.Column("float64", pa.Check.ge(0), nullable=True),
    },
    checks=pa.Check(lambda claims: claims["margin"].notna() | claims["direction"].ne("level"), name="level: a margin"),
    strict=True,
)
"""Schema of claims.csv. margin is what "level" allows on either side, and of "above" and "below" the bound, if one is claimed."""
TIMES = ("longer-costs", "larger-costs", "llama-slower")
"""Claims on the time of training, which no rerun repeats."""
_LEVEL_WITH_PUBLISHED = ("longer-costs", "payment")  # level with what was published, not with zero
_UNITS = {"training-cases": "stays", "payment": "dollars", "llama-slower": "minutes", "longer-costs": "share",
          "larger-costs": "share", "regression-ms": "weight", "regression-apr": "weight"}  # fmt: skip
_FORMS = {"score": ".3f", "stays": ",.0f", "dollars": ",.0f", "minutes": ".1f", "share": ".2f", "weight": ".2f", "points": ".2f"}  # fmt: skip


def read(file: Path = REFERENCE / "claims.csv") -> pd.DataFrame:
    """All claims of both papers, indexed by id.

    Returns
    -------
    DataFrame
        The columns of `CLAIMS`; bound (what is subtracted before a claim is judged, 0 if nothing) and unit.

    Raises
    ------
    StudyError
        If the file does not fit `CLAIMS`.
    """
    claims = checked(pd.read_csv(file), CLAIMS, file).set_index("id")
    bound = claims["margin"].where(claims["direction"] != "level", 0).fillna(0)
    with_published = claims.index.isin(_LEVEL_WITH_PUBLISHED)
    of_cmi = {claim: "points" for claim in claims.index if claim.startswith(("cmi-", "early-low-"))}
    unit = claims.index.to_series().map(_UNITS | of_cmi).fillna("score")
    return claims.assign(bound=bound.mask(with_published, claims["published"]), unit=unit)


def judge(paper: str, measured: dict[str, pd.Series | float | str]) -> pd.DataFrame:
    """A verdict for each claim of a paper, by the rule of docs/claims.md. Both papers' claims count in the correction.

    Parameters
    ----------
    paper : str
        One of `PAPERS`.
    measured : dict of claim's id to what was found
        A row of `bootstrap.Draws.difference`; a number that was measured once; or why the claim can't be asked here.

    Returns
    -------
    DataFrame
        The paper's claims, with value, lower and upper (before the bound is subtracted), p (corrected), verdict, and
        note: the largest effect that an undecided one does not exclude, or a reason.

    Raises
    ------
    StudyError
        If what is measured is not what the list has.
    """
    claims = read()
    tests = claims[claims["direction"] != "level"].groupby("family").size()
    ours = claims[claims["paper"] == paper]
    if odd := sorted(set(ours.index) ^ set(measured)):
        raise StudyError(
            f"claims.csv and what is measured differ in {', '.join(odd)}; add each to the one that lacks it"
        )
    rows = [_verdict(claim, measured[claim.Index], tests.get(claim.family, 0)) for claim in ours.itertuples()]
    return ours.join(pd.DataFrame(rows, index=ours.index, columns=["value", "lower", "upper", "p", "verdict", "note"]))


def _verdict(claim, found: pd.Series | float | str, tests: int) -> dict:
    """A row of `judge`; `claim` is a row of `read`, and `tests` the number of claims that its p is corrected for."""
    if isinstance(found, str):
        return {"verdict": NOT_APPLICABLE, "note": found}
    once = isinstance(found, float)
    value, lower, upper = [found] * 3 if once else found[["difference", "lower", "upper"]].astype(float)
    if not np.isfinite([value, lower, upper]).all():
        return {"verdict": NOT_APPLICABLE, "note": "what it compares is undefined on these stays"}
    row = {"value": value} if once else {"value": value, "lower": lower, "upper": upper}
    off, low, high = (end - claim.bound for end in (value, lower, upper))
    if claim.direction == "level":
        margin = claim.margin + 1e-9 * abs(claim.bound)  # rounding
        verdict = CONTRADICTED if low > margin or high < -margin else SEEN if max(-low, high) <= margin else UNDECIDED
        most, left = max(low, high, key=abs), True
    else:
        sign = 1 if claim.direction == "above" else -1
        p = float(off == 0) if once else min(1.0, tests * float(normal_p(off, found["sd"])))
        row |= {} if once else {"p": p}
        verdict = UNDECIDED if not p < 0.05 else SEEN if sign * off > 0 else CONTRADICTED
        most = high if sign > 0 else low
        left = sign * most > 0
    note = "measured once" if once else ""
    if verdict == UNDECIDED and not once:
        amount = _amount(claim, claim.bound + most)
        note = f"not excluded: {amount}" if left else "excluded: any effect of the claimed sign"
    return row | {"verdict": verdict, "note": note}


def _amount(claim, value: float) -> str:
    """A number in the claim's form: with its sign if it is a difference, plain if a bound says what it is compared with."""
    sign = "" if claim.bound else "+"
    return f"{value:{sign}z{_FORMS[claim.unit]}}".replace("-", "−")


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `judge` as it is printed."""
    rows = []
    for claim, p in zip(table.itertuples(), p_values(table["p"]), strict=True):
        said, value, lower, upper = (
            _amount(claim, number) if number == number else "–"
            for number in (claim.published, claim.value, claim.lower, claim.upper)
        )
        bound = f" (bound: {claim.bound:g})" if claim.bound and claim.direction != "level" else ""
        row = {"Claim": f"{claim.claim} ({claim.place})", "Published": said + bound}
        row["Here (95 % interval)"] = value if lower == "–" else f"{value} ({lower} to {upper})"
        row["p, corrected"] = p
        rows.append(row | {"Verdict": claim.verdict, "Remark": claim.note or "–"})
    return pd.DataFrame(rows)


def sentences(table: pd.DataFrame) -> list[str]:
    """How many claims of the table of `judge` have which verdict, the times left out; then each primary claim by itself."""
    counted = table[~table.index.isin(TIMES)]
    counts = counted["verdict"].value_counts().reindex(VERDICTS, fill_value=0)
    said = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    found = [f"Of {len(counted)} claims that predictions can decide: {said}."]
    for (_, claim), row in zip(table.iterrows(), printed(table).to_dict("records"), strict=True):
        if claim["family"] == "primary":
            amount = claim["note"] if claim["verdict"] == NOT_APPLICABLE else row["Here (95 % interval)"]
            found.append(f"Primary: {claim['claim']}: {claim['verdict']}, {amount}.")
    return found


def beside(table: pd.DataFrame, profiles: list[str], topic: str) -> pd.DataFrame:
    """The verdicts of the table of `judge` beside those that other profiles' reports hold: on other settings of the hospital.

    Parameters
    ----------
    table : DataFrame
    profiles : list of str
        One whose ``reports/<profile>/numbers.json`` is not there, or has no such topic, is left out.
    topic : str
        Of numbers.json: "claims" or "early_claims".

    Returns
    -------
    DataFrame
        As it is printed; the claims that one of these profiles could judge.
    """
    files = {profile: Paths(profile).report / "numbers.json" for profile in profiles}
    told = {profile: read_json(file).get(topic) for profile, file in files.items() if file.is_file()}
    found = {profile: pd.DataFrame.from_dict(part["claims"], "index") for profile, part in told.items() if part}
    judged = {claim for rows in found.values() for claim in rows.index[rows["verdict"] != NOT_APPLICABLE]}
    table = table[table.index.isin(judged)]
    shown = pd.DataFrame({"Claim": table["claim"]})
    for profile, rows in ({"here": table} | found if judged else {}).items():
        rows = rows.reindex(index=table.index, columns=table.columns)
        cells = printed(rows.fillna({"verdict": NOT_APPLICABLE, "note": "", "unit": "score", "bound": 0}))
        amounts = cells["Here (95 % interval)"].map(lambda amount: "" if amount == "–" else f": {amount}")
        shown[profile] = (cells["Verdict"] + amounts).to_numpy()
    return shown.reset_index(drop=True)
