"""The papers' claims: each is measured or says why not, and judged by the rule of docs/claims.md."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from drgstudy import claims, cohort, drgs, plots, results, study
from drgstudy.bootstrap import difference
from drgstudy.labels import TwoLabels
from drgstudy.metrics import Scores
from drgstudy.predictions import Predictions
from drgstudy.study import StudyError

LISTED = claims.read()


# --- the list
def test_the_list_is_read_with_its_bounds_and_units():
    assert LISTED.loc["auc-high", "bound"] == 0.95 and LISTED.loc["llama-bert-f1", "bound"] == 0
    assert LISTED.loc["two-level", "bound"] == 0  # level with nothing
    assert LISTED.loc[["longer-costs", "payment"], "bound"].tolist() == [0.9, 472500]  # level with what was published
    assert LISTED.loc["cmi-48-ms", "unit"] == "points" and LISTED.loc["training-cases", "unit"] == "stays"
    known = LISTED["published"].dropna().index.difference(["longer-costs", "payment"])
    signs = LISTED.loc[known].eval("published - bound").map(np.sign)
    assert (
        (signs == LISTED.loc[known, "direction"].map({"above": 1, "below": -1}))
        .drop(["two-level", "cc-base-level", "words-level"])
        .all()
    )


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("direction", "beside", "claims.csv, column direction, row 3: beside breaks the rule isin"),
        ("id", "llama-bert-f1", "column id.*breaks the rule field_uniqueness"),
        ("direction", "level", "level: a margin"),
    ],
)
def test_a_list_that_will_not_do_is_named(tmp_path, column, value, says):
    rows = pd.read_csv(study.REFERENCE / "claims.csv")
    rows.loc[3, column] = value
    rows.to_csv(tmp_path / "claims.csv", index=False)
    with pytest.raises(StudyError, match=says):
        claims.read(tmp_path / "claims.csv")


# --- the rule
def effect(value, sd, lower, upper):
    return pd.Series({"difference": value, "sd": sd, "lower": lower, "upper": upper})


def verdict(claim: str, found, **other) -> pd.Series:
    """The verdict on one claim of the list, where nothing else is measured."""
    paper = LISTED.loc[claim, "paper"]
    others = dict.fromkeys(LISTED.index[LISTED["paper"] == paper], "not asked")
    return claims.judge(paper, others | {claim: found} | other).loc[claim]


def test_p_is_corrected_for_the_claims_that_its_family_lists_and_tests():
    above = verdict("llama-bert-f1", effect(0.1, 0.04, 0.02, 0.18))
    assert above["p"] == pytest.approx(2 * 2 * norm.sf(2.5)) and above["verdict"] == "seen here"
    tested = (LISTED["family"].eq("secondary") & LISTED["direction"].ne("level")).sum()
    assert tested == 41 and "41 the others" in (study.ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    for claim in ("llama-bert-top1", "notes-ms-auc"):  # of both papers, and whichever of them apply
        assert verdict(claim, effect(0.1, 0.025, 0.05, 0.15))["p"] == pytest.approx(41 * 2 * norm.sf(4))
    assert verdict("llama-bert-top1", effect(0.1, 0.1, -0.1, 0.3))["p"] == 1


@pytest.mark.parametrize(
    ("claim", "found", "says", "note"),
    [
        ("llama-bert-f1", effect(-0.1, 0.04, -0.18, -0.02), "contradicted here", ""),
        ("llama-bert-f1", effect(0.05, 0.03, -0.01, 0.11), "undecided", "not excluded: +0.110"),  # p = 0.096
        ("llama-bert-f1", effect(-0.05, 0.03, -0.11, -0.001), "undecided", "excluded: any effect of the claimed sign"),
        ("bert-caml-f1", effect(-0.2, 0.03, -0.26, -0.14), "seen here", ""),  # claimed below
        ("bert-caml-f1", effect(-0.02, 0.03, -0.08, 0.04), "undecided", "not excluded: −0.080"),
        ("auc-high", effect(0.98, 0.002, 0.976, 0.984), "seen here", ""),
        ("auc-high", effect(0.9, 0.005, 0.89, 0.91), "contradicted here", ""),
        ("auc-high", effect(0.951, 0.005, 0.94, 0.96), "undecided", "not excluded: 0.960"),
        ("cmi-ms-24", effect(2.0, 0.5, 1.0, 3.0), "seen here", ""),
        ("two-level", effect(-0.004, 0.004, -0.012, 0.004), "seen here", ""),
        ("two-level", effect(0.05, 0.01, 0.03, 0.07), "contradicted here", ""),
        ("two-level", effect(0.01, 0.02, -0.03, 0.05), "undecided", "not excluded: +0.050"),
        ("longer-costs", 0.7, "seen here", "measured once"),  # 60 to 120 %
        ("longer-costs", 0.5, "contradicted here", "measured once"),
        ("larger-costs", -0.3, "contradicted here", "measured once"),
        ("larger-costs", 0.3, "seen here", "measured once"),
        ("payment", 472500.0000001, "seen here", "measured once"),
        ("payment", 472501.0, "contradicted here", "measured once"),
        ("two-level", "this profile names no run for it", "not applicable here", "this profile names no run for it"),
        ("auc-high", effect(np.nan, np.nan, np.nan, np.nan), "not applicable here", "what it compares is undefined on these stays"),
    ],
)  # fmt: skip
def test_a_verdict_of_each_kind_by_hand(claim, found, says, note):
    row = verdict(claim, found)
    assert (row["verdict"], row["note"]) == (says, note)


def test_counts_are_said_without_the_times():
    row = {"llama-bert-f1": effect(0.1, 0.01, 0.08, 0.12), "larger-costs": 0.3, "llama-caml-f1": "none ran"}
    others = dict.fromkeys(LISTED.index[LISTED["paper"] == "DRG-LLaMA"], "not asked")
    table = claims.judge("DRG-LLaMA", others | row)
    first, *primary = claims.sentences(table)
    assert (
        first
        == "Of 24 claims that predictions can decide: 1 seen here, 0 contradicted here, 0 undecided, 23 not applicable here."
    )
    assert primary[0].endswith("(by 40.3 % of it): seen here, +0.100 (+0.080 to +0.120).")
    assert primary[1].endswith("(by 35.7 % of it): not applicable here, none ran.")
    shown = claims.printed(table).set_index(table.index)
    assert (
        shown.loc["auc-high", "Published"] == "0.976 (bound: 0.95)"
        and shown.loc["larger-costs", "Here (95 % interval)"] == "+0.30"
    )
    assert shown.loc["llama-bert-f1", "p, corrected"] == "< 0.001" and shown.loc["llama-slower", "Published"] == "–"


def test_what_is_measured_must_be_what_is_listed():
    with pytest.raises(StudyError, match=r"differ in auc-high, base-easier, bert-caml-auc.*; add each"):
        claims.judge("DRG-LLaMA", {})


# --- what is measured: DRG-LLaMA
@pytest.fixture(scope="module")
def hospital():
    """Stays of 40 DRGs, and made predictions for each role."""
    rng, codes = np.random.default_rng(1), np.array(drgs.v34().index[20:60])
    weights = 1 / np.arange(1, 41)
    drg = np.r_[np.repeat(codes, 3), rng.choice(codes, 680, p=weights / weights.sum())]
    stays = pd.DataFrame({"stay_id": range(800), "subject_id": range(800), "drg_v34": drg, "text": "a"})
    stays["words"], stays["split"] = rng.integers(40, 90, 800), np.where(np.arange(800) % 3 == 0, "test", "train")
    stays["split_patients"] = stays["split"]
    cohort.STAYS.validate(stays)
    test = stays[stays["split"] == "test"]
    truth = np.searchsorted(codes, test["drg_v34"])
    space = TwoLabels(stays["drg_v34"], stays.loc[stays["split"] == "train", "drg_v34"])
    parts = space.encode(test["drg_v34"]).T

    def guesses(of, k, signal):
        return (rng.normal(size=(len(of), k)) + signal * (np.arange(k) == of[:, None])).astype("float32")

    made = {}
    roles = {"llama": 2.5, "bert": 1.0, "caml": 1.5, "smaller": 2.0, "shorter": 2.4, "two": 2.5}
    rare = np.isin(truth, [36, 37, 38])  # no model names them
    for i, (role, signal) in enumerate(roles.items()):
        cost = {"train_seconds": 100.0 - 10 * i, "fit_seconds": 60.0 * (9 - i)}
        run = {"run": role, "split": "split", "cost": cost, "model": "llama"}
        outputs = np.hstack([guesses(part, k, 3.0) for part, k in zip(parts, (space.n_bases, 5), strict=True)])
        extra = outputs if role == "two" else None
        logits = guesses(truth, 40, signal)
        logits[rare, truth[rare]] = -9
        made[role] = Predictions(test["stay_id"].to_numpy(), truth, codes, logits, run, extra)
    return made | {"larger": made["llama"], "longer": made["llama"]}, stays, space


@pytest.fixture(scope="module")
def measured(hospital):
    return claims.drg_llama(hospital[0], hospital[1], 40, 3)


def test_every_claim_of_drg_llama_is_measured(measured):
    assert list(LISTED.index[LISTED["paper"] == "DRG-LLaMA"].sort_values()) == sorted(measured)
    assert not [claim for claim, found in measured.items() if isinstance(found, str)]
    assert not {*claims.TIMES} - {claim for claim, found in measured.items() if isinstance(found, float)}


def test_each_is_what_a_plain_loop_makes_of_the_stays(hospital, measured):
    made, stays, space = hospital
    truth, labels = made["llama"].truth, made["llama"].labels
    value = {claim: found if isinstance(found, float) else found["difference"] for claim, found in measured.items()}
    scores = {role: Scores(p.logits, p.truth).evaluate() for role, p in made.items()}
    for claim, above, below, metric in (
        ("llama-bert-f1", "llama", "bert", "macro_f1"), ("llama-caml-auc", "llama", "caml", "macro_auc"),
        ("bert-caml-top1", "bert", "caml", "acc_at_1"), ("llama-bert-top5", "llama", "bert", "acc_at_5"),
        ("larger-f1", "llama", "smaller", "macro_f1"), ("longer-top1", "llama", "shorter", "acc_at_1"),
    ):  # fmt: skip
        assert value[claim] == pytest.approx(scores[above][metric] - scores[below][metric])
    assert value["auc-high"] == pytest.approx(min(scores[role]["macro_auc"] for role in ("llama", "bert", "caml")))
    right = [label == code for label, code in zip(made["llama"].logits.argmax(1), truth, strict=True)]
    two, rows = made["two"].outputs, range(len(truth))
    base, cc = space.encode(labels[truth]).T
    drg = [space.infer(two[[i]], "mapped")[0] == labels[truth[i]] for i in rows]
    assert value["base-easier"] == pytest.approx(
        np.mean([two[i, :340].argmax() == base[i] for i in rows]) - np.mean(drg)
    )
    assert value["cc-easier"] == pytest.approx(np.mean([two[i, 340:].argmax() == cc[i] for i in rows]) - np.mean(drg))
    assert value["cc-base-level"] == pytest.approx(value["cc-easier"] - value["base-easier"])
    assert value["two-level"] == pytest.approx(np.mean(drg) - np.mean(right))
    top = set(stays["drg_v34"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:30])
    some = [is_right for is_right, code in zip(right, labels[truth], strict=True) if code in top]
    assert value["frequent-easier"] == pytest.approx(np.mean(some) - np.mean(right))
    table = results.by_drg(
        Scores(made["llama"].logits, truth), labels, stays.query("split == 'train'")["drg_v34"].value_counts()
    )
    high, low = (table.query(f"acc_at_5 {end}")["train_cases"].median() for end in ("> 0.8", "< 0.2"))
    assert value["training-cases"] == high - low
    assert value["surgical-right"] == (table.query("acc_at_1 == 1")["type"] == "surgical").mean()
    words = stays.groupby("split")["words"].mean()
    assert value["words-level"] == pytest.approx(words["test"] / words["train"] - 1)
    assert value["larger-costs"] == pytest.approx(100 / 70 - 1) and value["longer-costs"] == pytest.approx(100 / 60 - 1)
    assert value["llama-slower"] == 9 - 8  # minutes of the whole fit


def test_intervals_are_those_of_the_same_difference_elsewhere(hospital, measured):
    llama, caml = (Scores(hospital[0][role].logits, hospital[0][role].truth) for role in ("llama", "caml"))
    expected = difference(llama, caml, 40, 3).loc["macro_f1"]
    pd.testing.assert_series_equal(measured["llama-caml-f1"], expected)


def test_a_claim_that_cannot_be_asked_says_why(hospital):
    made, stays, _ = hospital
    alone = claims.drg_llama({"llama": made["llama"]}, stays, 5, 3)
    assert alone["llama-bert-f1"] == alone["two-level"] == alone["longer-costs"] == "this profile names no run for it"
    assert isinstance(alone["auc-high"], pd.Series) and isinstance(alone["frequent-easier"], pd.Series)
    few = stays["drg_v34"].isin(made["llama"].labels[:30])
    ids = stays.loc[few & (stays["split"] == "test"), "stay_id"]
    kept = np.isin(made["llama"].stay_ids, ids)
    llama = made["llama"]
    perfect = 9 * np.eye(30, dtype="float32")[llama.truth[kept]]
    run = llama.run | {"cost": {}}
    small = Predictions(llama.stay_ids[kept], llama.truth[kept], llama.labels[:30], perfect, run)
    said = claims.drg_llama({"llama": small, "smaller": small, "larger": small}, stays[few], 5, 3)
    assert said["frequent-easier"] == "the cohort has no more than 30 DRGs"
    assert "none has one below 20 %" in said["training-cases"]
    assert said["larger-costs"] == "no time of training is on record"
    none = Predictions(llama.stay_ids[kept], llama.truth[kept], llama.labels[:30], -perfect, run)
    assert claims.drg_llama({"llama": none}, stays[few], 5, 3)["surgical-right"] == "no DRG is always named right"


def test_what_would_give_small_counts_away_is_not_told(hospital):
    made, stays, _ = hospital
    n = len(made["llama"].truth)
    nearly = 9 * np.eye(40, dtype="float32")[made["llama"].truth]
    nearly[:4] *= -1  # four stays are wrong
    run = made["llama"].run | {"run": "nearly"}
    sure = Predictions(made["llama"].stay_ids, made["llama"].truth, made["llama"].labels, nearly, run)
    found = claims.drg_llama(made | {"llama": sure, "larger": sure, "longer": sure}, stays, 5, 3, mask_below=11)
    few = "small counts of stays would follow from it"
    told = [claim for claim, said in found.items() if not isinstance(said, str) or said != few]
    assert not {"llama-bert-top1", "llama-caml-top5", "two-level", "frequent-easier", "larger-top1"} & set(told)
    assert {"llama-bert-f1", "bert-caml-top1", "bert-caml-f1", "words-level", "auc-high"} <= set(told)
    open_data = claims.drg_llama(made | {"llama": sure}, stays, 5, 3)
    assert (
        open_data["llama-bert-top1"]["difference"]
        == (n - 4) / n - Scores(made["bert"].logits, made["bert"].truth).evaluate()["acc_at_1"]
    )


# --- what is measured: early DRG
HOURS = (-24, -6, 6, 24, 48)
ROLES = {"ms": "caml-ms", "apr": "caml-apr", "ms_measured": "lstm-ms", "apr_measured": "lstm-apr", "ms_bert": "bert-ms",
         "ms_weight": "w-ms", "apr_weight": "w-apr"}  # fmt: skip


@pytest.fixture
def icu(monkeypatch, tmp_path):
    """Hold-out stays of two systems that overlap, and two models a run; where each file would lie, an empty folder."""
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    paths, rng, held, said = study.Paths("icu", "early"), np.random.default_rng(5), {}, {}
    for system, ids in (("ms", np.arange(0, 150)), ("apr", np.arange(60, 230))):
        facts = drgs.fiscal_2013(system)
        mdc = {"05": 20, "04": 20}
        codes = np.sort(np.concatenate([facts.index[facts["mdc"] == code][:n] for code, n in mdc.items()]))
        drg = rng.choice(codes, len(ids), p=(w := 1.0 / np.arange(1, len(codes) + 1)) / w.sum())
        facts = facts.loc[drg]
        held[system] = pd.DataFrame(
            {"stay_id": ids, "subject_id": ids, "drg": drg, "weight": facts["relative_weight"].to_numpy()}
        )
        held[system] = held[system].assign(
            mdc=facts["mdc"].to_numpy(), diagnosis="", icu_in=pd.Timestamp("2100-01-01").as_unit("ms")
        )
        held[system] = held[system].assign(first_visit=ids % 7 > 0, fold=0, fold_known=0)
        labels = np.unique(drg)
        truth = np.searchsorted(labels, drg)
        for role, run in ROLES.items():
            if not role.startswith(system) or role.endswith("weight"):
                continue
            for hour in HOURS if role == system else (48,):
                signal = 2.0 + 0.01 * hour if role == system else 1.0
                logits = [
                    rng.normal(size=(len(ids), len(labels))) + signal * (np.arange(len(labels)) == truth[:, None])
                    for _ in "12"
                ]
                about = {"run": run, "system": system}
                said[run, hour] = [Predictions(ids, truth, labels, each.astype("float32"), about) for each in logits]
                (paths.runs / run / "fold-1" / f"hour{hour:+03d}").mkdir(parents=True)
        said[f"w-{system}"] = held[system][["stay_id", "weight"]].rename(columns={"weight": "true"})
    monkeypatch.setattr(claims, "read_rows", lambda file, schema: schema.validate(held[file.stem]))
    for module in (claims, results):
        monkeypatch.setattr(module, "read_folds", lambda paths, run, hours=48: said[run, hours])
    monkeypatch.setattr(
        results,
        "read_weights",
        lambda paths, run: [said[run].assign(predicted=said[run]["true"] + off) for off in (0.5, -0.1)],
    )
    return paths, held, said


def test_every_claim_of_the_early_paper_is_measured_and_is_what_a_plain_loop_makes_of_it(icu):
    paths, held, said = icu
    found = claims.early(paths, ROLES, 30, 3)
    assert sorted(found) == sorted(LISTED.index[LISTED["paper"] == "early DRG"])
    assert not [claim for claim, effect in found.items() if isinstance(effect, str)]
    value = {claim: effect if isinstance(effect, float) else effect["difference"] for claim, effect in found.items()}

    def mean(run, metric):
        return np.mean([Scores(p.logits, p.truth).evaluate()[metric] for p in said[run, 48]])

    assert value["notes-ms-auc"] == pytest.approx(mean("caml-ms", "macro_auc") - mean("lstm-ms", "macro_auc"))
    assert value["notes-apr-f1"] == pytest.approx(mean("caml-apr", "acc_at_1") - mean("lstm-apr", "acc_at_1"))
    assert value["bert-early-f1"] == pytest.approx(mean("bert-ms", "macro_f1") - mean("caml-ms", "macro_f1"))
    assert value["ms-apr-f1"] == pytest.approx(mean("caml-ms", "acc_at_1") - mean("caml-apr", "acc_at_1"))
    among = held["ms"]["mdc"].eq("05").to_numpy()
    right = [p.logits.argmax(1) == p.truth for p in said["caml-ms", 48]]
    assert value["circulatory-easier"] == pytest.approx(np.mean([one[among].mean() - one.mean() for one in right]))
    top = held["ms"]["drg"].isin(
        held["ms"]["drg"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:30]
    )
    assert value["early-frequent-easier"] == pytest.approx(np.mean([one[top].mean() - one.mean() for one in right]))

    def cmi(system, hour):
        first = held[system]["first_visit"].to_numpy()
        true, weights = held[system].loc[first, "weight"].to_numpy(), drgs.fiscal_2013(system)["relative_weight"]
        guesses = [weights.loc[p.labels[p.logits.argmax(1)]].to_numpy()[first] for p in said[f"caml-{system}", hour]]
        return np.array([100 * (guess.mean() / true.mean() - 1) for guess in guesses])

    assert value["cmi-ms-24"] == pytest.approx(np.abs(cmi("ms", 24)).mean())
    assert value["cmi-ms-apr"] == pytest.approx(np.abs(cmi("ms", 24)).mean() - np.abs(cmi("apr", 24)).mean())
    assert value["cmi-admission-apr"] == pytest.approx(np.abs(cmi("apr", 6)).mean() - np.abs(cmi("apr", -6)).mean())
    assert value["cmi-48-ms"] == pytest.approx(np.abs(cmi("ms", 48)).mean() - np.abs(cmi("ms", 24)).mean())
    assert value["early-low-ms"] == pytest.approx(cmi("ms", -24).mean())
    assert value["regression-ms"] == pytest.approx(0.3) and value["payment"] == pytest.approx(472_500)


def test_folds_and_overlapping_stays_are_drawn_together(icu):
    paths, held, said = icu
    found = claims.early(paths, ROLES, 30, 3)["notes-ms-f1"]
    n = len(np.union1d(held["ms"]["stay_id"], held["apr"]["stay_id"]))
    assert n == 230
    rng, folds = np.random.default_rng(3), np.random.default_rng([3, 0])
    right = {run: np.array([p.logits.argmax(1) == p.truth for p in said[run, 48]]) for run in ("caml-ms", "lstm-ms")}
    changes = []
    for _ in range(30):
        drawn = (stays := rng.integers(n, size=n))[stays < 150]  # those of MS-DRG
        models = folds.integers(2, size=2)
        changes.append(np.mean([right["caml-ms"][k][drawn].mean() - right["lstm-ms"][k][drawn].mean() for k in models]))
    assert found["sd"] == pytest.approx(np.std(changes, ddof=1))


def test_what_the_early_profile_lacks_is_said(icu):
    paths = icu[0]
    for hour in (-6, 24):
        (paths.runs / "caml-ms" / "fold-1" / f"hour{hour:+03d}").rmdir()
    found = claims.early(paths, ROLES | {"ms_bert": "", "apr_measured": "", "ms_weight": ""}, 5, 3)
    for claim in ("bert-early-auc", "notes-apr-f1", "regression-ms"):
        assert found[claim] == "this profile names no run for it"
    assert found["cmi-admission-ms"] == "this profile asks no model at hour −6"
    assert found["cmi-ms-apr"] == found["cmi-ms-24"] == "this profile asks no model at hour +24"
    assert isinstance(found["cmi-apr-24"], pd.Series)


def test_of_the_early_study_too_small_counts_are_not_told(icu):
    paths, _, said = icu
    model = said["caml-ms", 48][0]
    model.logits[:] = 9 * np.eye(len(model.labels))[model.truth]
    model.logits[:3] *= -1  # one fold's model has three stays wrong
    found = claims.early(paths, ROLES, 5, 3, mask_below=11)
    few = "small counts of stays would follow from it"
    for claim in ("notes-ms-f1", "ms-apr-f1", "circulatory-easier", "early-frequent-easier"):
        assert found[claim] == few
    assert isinstance(found["notes-ms-auc"], pd.Series) and isinstance(found["notes-apr-f1"], pd.Series)


def test_the_figure_has_a_row_for_each_claim_with_an_interval(hospital, measured):
    table = claims.judge("DRG-LLaMA", measured)
    figure = plots.claims(table, "synthetic hospital, seed 3")
    shown = [label.get_text().replace("\n", " ") for ax in figure.axes for label in ax.get_yticklabels()]
    assert sorted(shown) == sorted(table.loc[table["lower"].notna(), "claim"])
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {*claims.VERDICTS[:3], "published"}
