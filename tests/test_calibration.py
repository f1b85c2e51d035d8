import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve

from drgstudy import calibration, casemix, findings
from drgstudy.bootstrap import resample_counts
from drgstudy.study import StudyError

ONCE = np.ones((1, 4), int)
shares = st.integers(0, 8).map(lambda eighths: eighths / 8)  # few values, hence many ties


def calibrated(n, seed, sharpness=1.0):
    """Logits times `sharpness`, and labels drawn from the softmax of the logits themselves."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=(n, 6))
    below = softmax(logits, axis=1).cumsum(axis=1) < rng.random((n, 1))
    return logits * sharpness, below.sum(axis=1).clip(max=5)


def stays(min_size=1):
    return st.integers(min_size, 40).flatmap(
        lambda n: st.tuples(arrays(float, n, elements=shares), arrays(bool, n), st.permutations(range(n)))
    )


def test_top1_by_hand():
    logits = np.log([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]) + 5  # softmax does not see the shift
    confidence, hit = calibration.top1(logits.astype(np.float32), np.array([0, 1]))
    assert confidence == pytest.approx([0.7, 0.4], abs=1e-6) and hit.tolist() == [True, False]
    assert confidence.dtype == np.float64 and hit.dtype == bool


@pytest.mark.parametrize("bins", [1, 3, 10])
def test_reliability_equals_scikit_learn(bins):
    rng = np.random.default_rng(bins)
    confidence = rng.random(212)  # no quantile falls on a stay, where rounding would decide
    hit = rng.random(212) < confidence**2
    table = calibration.reliability(confidence, hit, bins)
    accuracy, mean = calibration_curve(hit, confidence, n_bins=bins, strategy="quantile")
    np.testing.assert_allclose(table["accuracy"], accuracy)
    np.testing.assert_allclose(table["confidence"], mean)
    assert table["stays"].sum() == 212 and np.ptp(table["stays"]) <= 1
    assert (table["lower"] <= table["accuracy"]).all() and (table["accuracy"] <= table["upper"]).all()


def test_wilson_interval_by_hand():
    table = calibration.reliability(np.full(10, 0.5), np.arange(10) < 8, 4)  # one confidence: a single bin
    z = 1.959964
    centre, reach = (0.8 + z**2 / 20) / (1 + z**2 / 10), z * np.sqrt(0.8 * 0.2 / 10 + z**2 / 400) / (1 + z**2 / 10)
    assert table.iloc[0].to_dict() == pytest.approx(
        {"confidence": 0.5, "accuracy": 0.8, "stays": 10, "lower": centre - reach, "upper": centre + reach}, abs=1e-6
    )


def test_calibration_by_hand():
    confidence, hit = np.array([0.9, 0.5, 0.7, 0.1]), np.array([False, True, True, False])
    # Two bins: {0.1, 0.5} is right half the time and says 0.3; {0.7, 0.9} is right half the time and says 0.8.
    table = calibration.calibration(confidence, hit, 2, ONCE)
    assert list(table) == ["value", "sd", "lower", "upper"]
    found = table["value"]
    assert found.to_dict() == pytest.approx({"confidence": 0.55, "accuracy": 0.5, "overconfidence": 0.05, "ece": 0.25})


@given(stays(), st.integers(1, 6))
@settings(max_examples=80, deadline=None)
def test_calibration_follows_its_definition_in_any_order(drawn, bins):
    confidence, hit, order = drawn
    counts = np.ones((2, hit.size), int)
    found = calibration.calibration(confidence, hit, bins, counts)
    table = calibration.reliability(confidence, hit, bins)
    share = table["stays"] / hit.size
    assert found.loc["ece", "value"] == pytest.approx((share * (table["accuracy"] - table["confidence"]).abs()).sum())
    assert abs(found.loc["overconfidence", "value"]) <= found.loc["ece", "value"] + 1e-12 <= 1 + 1e-9
    again = calibration.calibration(confidence[order], hit[order], bins, counts)
    pd.testing.assert_frame_equal(found, again, atol=1e-12)
    np.testing.assert_allclose(found["lower"], found["value"], atol=1e-12)  # each resample is the stays themselves


def test_intervals_are_those_of_the_drawn_stays():
    confidence, hit = calibration.top1(*calibrated(60, 3))
    counts = resample_counts(60, 200, 1)
    found = calibration.calibration(confidence, hit, 1, counts)  # one bin: it is the same for any resample
    gaps = [(confidence[drawn] - hit[drawn]).mean() for drawn in (np.repeat(np.arange(60), c) for c in counts)]
    assert found.loc["overconfidence", ["lower", "upper"]].tolist() == pytest.approx(np.quantile(gaps, [0.025, 0.975]))
    assert found.loc["ece", "sd"] == pytest.approx(np.std(np.abs(gaps), ddof=1))
    assert found.loc["overconfidence", "value"] == pytest.approx((confidence - hit).mean())  # of the stays as they are


def test_a_calibrated_model_shows_no_more_than_chance():
    confidence, hit = calibration.top1(*calibrated(4000, 0))
    found = calibration.calibration(confidence, hit, 10, resample_counts(4000, 100, 0))
    chance = calibration.chance_error(confidence, 10, 300, 0)
    assert found.loc["ece", "value"] < np.quantile(chance, 0.99) < 0.04
    assert found.loc["overconfidence", "lower"] < 0.01 and found.loc["overconfidence", "upper"] > -0.01
    sharp, hit = calibration.top1(*calibrated(4000, 0, sharpness=3))
    boasting = calibration.calibration(sharp, hit, 10, resample_counts(4000, 100, 0))
    assert boasting.loc["overconfidence", "lower"] > 0.1
    assert boasting.loc["ece", "value"] > calibration.chance_error(sharp, 10, 300, 0).max()


def test_chance_error_by_hand():
    # Two stays that say one half: right 0, 1 or 2 times, so off by a half, nothing or a half.
    errors = calibration.chance_error(np.array([0.5, 0.5]), 1, 4000, 7)
    assert set(errors) == {0.0, 0.5} and errors.mean() == pytest.approx(0.25, abs=0.02)
    assert (calibration.chance_error(np.ones(5), 3, 10, 0) == 0).all()


def test_coverage_by_hand():
    confidence, hit = np.array([0.6, 0.9, 0.6, 0.2]), np.array([True, True, False, False])
    curve = calibration.coverage(confidence, hit)
    assert curve.to_numpy().tolist() == [[0.9, 0.25, 1.0], [0.6, 0.75, 2 / 3], [0.2, 1.0, 0.5]]
    assert calibration.coverage(np.ones(2), hit[:2]).to_numpy().tolist() == [[1, 1, 1]]


def test_each_half_of_the_stays_is_answered_by_the_threshold_of_the_other():
    half = np.random.default_rng(4).permutation(8) % 2
    confidence, hit = np.empty(8), np.empty(8, bool)
    confidence[half == 0], hit[half == 0] = [0.9, 0.8, 0.5, 0.2], [True, True, False, False]
    confidence[half == 1], hit[half == 1] = [0.85, 0.7, 0.6, 0.1], [False, True, True, True]
    found = calibration.coverage_at(confidence, hit, [0.6, 1.0], np.ones((1, 8), int), 4)
    # At 60 % the first half chooses 0.5 (two of three) and the second 0.1 (three of four): the others are 3 and 4 stays.
    assert found.loc[0.6, ["value", "accuracy", "threshold"]].tolist() == pytest.approx([7 / 8, 4 / 7, 0.3])
    # At 100 % the first half chooses 0.8, which answers one of the second, wrongly; the second has no threshold.
    assert found.loc[1.0, ["value", "accuracy", "threshold"]].tolist() == pytest.approx([1 / 8, 0, 0.8])
    few = calibration.coverage_at(confidence, hit, [1.0], np.ones((1, 8), int), 4, fewest=3).loc[1.0]
    assert few["value"] == 0 and few[["accuracy", "accuracy_lower", "threshold"]].isna().all()


def test_a_threshold_judged_on_the_stays_that_chose_it_promises_too_much():
    """Confidences that say nothing of a model that is right in 70 %: no threshold can make it right in 80 %."""
    rng, promised, kept = np.random.default_rng(0), 0, []  # kept: answered stays, and their accuracy
    for seed in range(20):
        confidence, hit = rng.random(300), rng.random(300) < 0.7
        promised += (calibration.coverage(confidence, hit)["accuracy"] >= 0.8).any()  # as it was done before
        found = calibration.coverage_at(confidence, hit, [0.8], np.ones((1, 300), int), seed)
        kept.append(found.loc[0.8, ["value", "accuracy"]])
    answered, right = pd.DataFrame(kept).dropna().T.to_numpy()
    assert promised > 10 and answered @ right / answered.sum() == pytest.approx(0.7, abs=0.05)


@given(stays())
@settings(max_examples=80, deadline=None)
def test_coverage_is_what_a_threshold_does_in_any_order(drawn):
    confidence, hit, order = drawn
    curve = calibration.coverage(confidence, hit)
    assert curve["threshold"].tolist() == sorted(set(confidence), reverse=True)
    for row in curve.itertuples():
        answered = confidence >= row.threshold
        assert (row.coverage, row.accuracy) == pytest.approx((answered.mean(), hit[answered].mean()))
    pd.testing.assert_frame_equal(curve, calibration.coverage(confidence[order], hit[order]))


@given(stays(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_coverage_of_a_resample_is_that_of_the_stays_drawn(drawn, seed):
    confidence, hit, _ = drawn
    count = resample_counts(hit.size, 1, seed)[0]
    again = np.repeat(np.arange(hit.size), count)
    pd.testing.assert_frame_equal(
        calibration.coverage(confidence, hit, count), calibration.coverage(confidence[again], hit[again])
    )


@given(stays(3), st.integers(0, 99), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_resampled_coverage_and_chance_equal_a_plain_loop(drawn, seed, fewest):
    """Threshold by threshold, resample by resample, bin by bin."""
    confidence, hit, _ = drawn

    half = np.random.default_rng(seed).permutation(hit.size) % 2

    def reached(stays, target):
        answered = []
        for side in (0, 1):
            own, others = stays[half[stays] == side], stays[half[stays] != side]
            fine = [np.inf]
            for threshold in confidence[own]:
                chosen = confidence[own] >= threshold
                if hit[own][chosen].mean() >= target and chosen.sum() >= fewest:
                    fine.append(threshold)
            answered += others[confidence[others] >= min(fine)].tolist()
        return len(answered) / len(stays), hit[answered].mean() if answered else np.nan

    counts, everyone = resample_counts(hit.size, 5, seed), np.arange(hit.size)
    samples = [[reached(np.repeat(everyone, count), target) for target in (0.5, 0.8)] for count in counts]
    found = calibration.coverage_at(confidence, hit, [0.5, 0.8], counts, seed, fewest)
    assert list(found)[:4] == ["value", "sd", "lower", "upper"] and found.index.name == "target"
    np.testing.assert_allclose(found[["value", "accuracy"]], [reached(everyone, target) for target in (0.5, 0.8)])
    coverages = np.array(samples)[..., 0]
    np.testing.assert_allclose(found["sd"], np.std(coverages, axis=0, ddof=1), atol=1e-12)
    np.testing.assert_allclose(found[["lower", "upper"]].T, np.quantile(coverages, [0.025, 0.975], axis=0), atol=1e-12)
    accuracies = pd.DataFrame(np.array(samples)[..., 1]).quantile([0.025, 0.975])  # of the resamples with an answer
    np.testing.assert_allclose(found[["accuracy_lower", "accuracy_upper"]].T, accuracies, atol=1e-12)
    if not fewest:
        pd.testing.assert_frame_equal(calibration.coverage_at(confidence, hit, [0.5, 0.8], counts, seed), found)

    rng, edges = np.random.default_rng(seed), np.quantile(confidence, [1 / 3, 2 / 3])
    member = (confidence[:, None] > edges).sum(axis=1)
    for error in calibration.chance_error(confidence, 3, 4, seed):
        gap = confidence - (rng.random(hit.size) < confidence)
        assert error == pytest.approx(sum(abs(gap[member == i].sum()) for i in range(3)) / hit.size)


def test_temperature_is_recovered_and_repairs():
    logits, truth = calibrated(3000, 1, sharpness=2.5)
    tempered, temperatures = calibration.temperature_scaled(logits, truth, 42)
    assert temperatures == pytest.approx([2.5, 2.5], rel=0.1)
    confidence, hit = calibration.top1(tempered, truth)
    counts = resample_counts(3000, 50, 0)
    before = calibration.calibration(*calibration.top1(logits, truth), 10, counts)["value"]
    after = calibration.calibration(confidence, hit, 10, counts)["value"]
    assert after["ece"] < 0.04 < 0.1 < before["ece"] and after["accuracy"] == before["accuracy"]


def test_no_stay_decides_its_own_temperature():
    logits, truth = calibrated(200, 5)
    tempered, (first, second) = calibration.temperature_scaled(logits, truth, 0)
    used = (logits / tempered)[:, 0]
    mine = np.isclose(used, first)
    assert mine.sum() == 100 and np.allclose(used[~mine], second) and first != second
    changed = truth.copy()
    changed[mine] = (truth[mine] + 1) % 6
    _, (third, fourth) = calibration.temperature_scaled(logits, changed, 0)
    assert third == first and fourth != second
    rows, labels = logits[~mine], truth[~mine]  # the other half's best temperature, by brute force
    grid = np.geomspace(0.2, 5, 2001)
    loss = [-log_softmax(rows / t, axis=1)[np.arange(100), labels].mean() for t in grid]
    assert first == pytest.approx(grid[np.argmin(loss)], rel=0.003)


def test_temperatures_stay_within_bounds_and_the_halves_are_drawn_by_the_seed():
    logits, truth = np.tile([0.0, 0.1], (5, 1)), np.ones(5, int)
    half = np.random.default_rng(3).permutation(5) % 2
    tempered, temperatures = calibration.temperature_scaled(
        logits, truth * (half == 0), 3
    )  # the second half is always wrong
    np.testing.assert_allclose(temperatures, np.exp([4, -4]), rtol=1e-3)
    np.testing.assert_array_equal(tempered, logits / temperatures[half][:, None])
    assert calibration.temperature_scaled(np.eye(2, dtype=np.float32), np.arange(2), 0)[0].dtype == np.float64


def test_an_overconfident_model_is_found_out_and_repaired():
    logits, truth = calibrated(3000, 1, sharpness=2.5)
    counts = resample_counts(3000, 60, 0)
    table = calibration.assess(logits, truth, 10, counts, 42)
    plain = calibration.calibration(*calibration.top1(logits, truth), 10, counts)
    pd.testing.assert_frame_equal(table.loc[plain.index], plain)
    assert table.loc["temperature", "value"] == pytest.approx(2.5, rel=0.1)
    before, after, chance = (table.loc[name] for name in ("ece", "ece_tempered", "ece_by_chance"))
    assert before["lower"] > chance["upper"] > chance["value"] > 0  # more than chance makes of a calibrated model
    assert after["lower"] <= after["value"] <= after["upper"] < before["lower"]
    confidence = calibration.top1(logits, truth)[0]
    drawn = np.sort(calibration.chance_error(confidence, 10, 60, 42))
    assert (drawn <= chance["upper"]).sum() == 57 and chance["value"] == pytest.approx(drawn.mean())  # 95 % of 60


def trust(sure=(0.063, 0.011, 0.122), error=0.085, weights=None):
    """What `trust_sentences` says of 200 stays; `sure` is the overconfidence and its interval, `error` the calibration error."""
    rng = np.random.default_rng(0)
    true, counts = rng.lognormal(size=200), resample_counts(200, 100, 0)
    rows = {"accuracy": (0.55,) * 3, "confidence": (0.61,) * 3, "overconfidence": sure, "ece": (error,) * 3}
    rows |= {"ece_by_chance": (0.05, np.nan, 0.088), "ece_tempered": (0.05,) * 3}
    calibrated = pd.concat({"llama": pd.DataFrame(rows, ["value", "lower", "upper"]).T})
    answered = pd.DataFrame([
        {"target": 0.8, "value": 0.42, "lower": 0.31, "upper": 0.55, "accuracy": 0.76,
         "accuracy_lower": 0.65, "accuracy_upper": 0.85, "threshold": 0.7},
        {"target": 0.9, "value": 0.0, "lower": 0.0, "upper": 0.1, "accuracy": np.nan, "threshold": np.nan},
    ]).assign(run="llama")  # fmt: skip
    said = {"top-1": true + rng.normal(0, 0.3, 200), "expected": true} if weights is None else weights(true)
    guess = np.full(200, 1.3 * true.mean())
    ways = {("llama", way): weight for way, weight in said.items()} | {("Training mean", "expected"): guess}
    mix = {key: casemix.case_mix(true, weight, counts, 6000.0) for key, weight in ways.items()}
    mix = pd.concat(mix, names=["run", "way", "measure"]).reset_index()
    against = {way: casemix.change_by_hour(true, guess[None], weight[None], 100, 0) for way, weight in said.items()}
    return findings.trust_sentences("llama", "DRG-LLaMA", calibrated, answered, mix, against)


@pytest.mark.parametrize(
    ("sure", "error", "leaning", "verdict"),
    [
        (
            (0.063, 0.011, 0.122),
            0.085,
            "is overconfident (+6.3 points",
            "but its calibration error of 0.085, which needs more stays",
        ),
        (
            (0.063, 0.011, 0.122),
            0.095,
            "is overconfident (+6.3 points",
            "and its calibration error of 0.095 is more than chance",
        ),
        (
            (-0.06, -0.1, -0.01),
            0.095,
            "is too modest (−6.0 points",
            "and its calibration error of 0.095 is more than chance",
        ),
        (
            (0.01, -0.02, 0.04),
            0.095,
            "leans to neither side",
            "but its calibration error of 0.095, which sees gaps that cancel",
        ),
        (
            (0.01, -0.02, 0.04),
            0.085,
            "leans to neither side",
            "and its calibration error of 0.085 is within what chance",
        ),
    ],
)
def test_one_sentence_says_both_of_calibration_and_does_not_contradict_itself(sure, error, leaning, verdict):
    said = [sentence for sentence in trust(sure, error) if "calibration error" in sentence or "% sure" in sentence]
    assert len(said) == 1 and leaning in said[0] and verdict in said[0] and "(up to 0.088)" in said[0]


def test_what_a_threshold_keeps_is_said_beside_what_it_promised():
    said = [sentence for sentence in trust() if "hreshold" in sentence]
    assert "80 % of its answers right on one half of the stays lets it answer 42 % of the other half" in said[0]
    assert said[0].endswith("(95 % interval 31 to 55), of which 76 % (65 to 85) are right; a coder does the rest.")
    assert said[1] == "No threshold makes 90 % of its answers right on one half of the stays: a coder codes every stay."


def test_the_total_is_compared_with_a_guess_that_reads_nothing():
    said = trust()[-1]
    assert "the total by top-1 weights is nearer (−" in said and "by expected weights is nearer (−30.0 points" in said
    rng = np.random.default_rng(1)
    noisy = trust(weights=lambda true: {"top-1": 1.3 * true + rng.normal(0, 2, 200), "expected": 1.9 * true})[-1]
    assert "by top-1 weights can’t be told from it" in noisy and "by expected weights is farther off (+60.0" in noisy


def test_refuses():
    logits, truth = calibrated(20, 0)
    confidence, hit = calibration.top1(logits, truth)
    for bad in ((logits, truth[1:]), (logits[:0], truth[:0]), (logits * np.nan, truth), (logits[0], truth)):
        with pytest.raises(StudyError, match="one row of finite numbers"):
            calibration.top1(*bad)
    with pytest.raises(StudyError, match="bins is 0"):
        calibration.reliability(confidence, hit, 0)
    for target in (0, 1.2, 90):
        with pytest.raises(StudyError, match=f"targets: {target} is no accuracy"):
            calibration.coverage_at(confidence, hit, [0.8, target], ONCE, 0)
    with pytest.raises(StudyError, match="can't be halved"):
        calibration.temperature_scaled(logits[:1], truth[:1], 0)
