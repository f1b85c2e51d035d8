import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from drgstudy.bootstrap import GROUPS, Draws, bca, bootstrap, difference, left_out_counts, resample_counts, summary
from drgstudy.metrics import METRICS, Scores
from drgstudy.study import StudyError


def draw(seed=0, n=120, c=9, skill=1.0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, c, n)
    logits = rng.normal(size=(n, c))
    logits[np.arange(n), truth] += skill
    return logits, truth


@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_each_resample_has_as_many_stays_as_the_test_set(n, resamples, seed):
    counts = resample_counts(n, resamples, seed)
    assert counts.shape == (resamples, n) and counts.min() >= 0
    assert (counts.sum(axis=1) == n).all()
    np.testing.assert_array_equal(counts[:1], resample_counts(n, 1, seed))  # a longer bootstrap begins with the shorter


def test_counts_are_those_of_drawing_with_replacement():
    counts = resample_counts(200, 2000, 1)
    assert counts.mean(axis=0) == pytest.approx(np.ones(200), abs=0.12)  # five standard errors
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 200) ** 200, abs=0.005)
    assert counts.var() == pytest.approx(1 - 1 / 200, abs=0.02)
    assert not np.array_equal(counts, resample_counts(200, 2000, 2))


def test_scores_each_resample():
    logits, truth = draw()
    samples = bootstrap(Scores(logits, truth), 40, 5)  # more than one block
    assert samples.shape == (40, 6) and list(samples) == list(METRICS) and list(samples.index) == list(range(40))
    for i, counts in enumerate(resample_counts(120, 40, 5)):
        drawn = np.repeat(np.arange(120), counts)
        assert samples.loc[i].to_dict() == pytest.approx(Scores(logits[drawn], truth[drawn]).evaluate(), abs=1e-12)


@given(st.integers(1, 7), st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_equals_a_plain_loop(resamples, seed):
    """Draw the stays one resample after the other, score those drawn, and subtract one model from the other."""
    (logits, truth), (others, _) = draw(n=30, c=4), draw(n=30, c=4, skill=3.0)
    rng = np.random.default_rng(seed)
    ours, theirs = [], []
    for _ in range(resamples):
        drawn = rng.integers(30, size=30)
        ours.append(Scores(logits[drawn], truth[drawn]).evaluate())
        theirs.append(Scores(others[drawn], truth[drawn]).evaluate())
    a, b = Scores(logits, truth), Scores(others, truth)
    samples = bootstrap(a, resamples, seed)
    assert samples.index.name == "resample"
    pd.testing.assert_frame_equal(samples.rename_axis(None), pd.DataFrame(ours), atol=1e-12)
    found, by_loop = difference(a, b, resamples, seed), pd.DataFrame(ours) - pd.DataFrame(theirs)
    pd.testing.assert_series_equal(found["sd"], summary(by_loop)["sd"], atol=1e-12)


def test_subset_is_taken_after_the_whole_test_set_was_resampled():
    logits, truth = draw()
    samples = bootstrap(Scores(logits, truth), 20, 5, subset=[0, 4])
    for i, counts in enumerate(resample_counts(120, 20, 5)):
        drawn = np.repeat(np.arange(120), counts * np.isin(truth, [0, 4]))
        assert samples.loc[i].to_dict() == pytest.approx(Scores(logits[drawn], truth[drawn]).evaluate(), abs=1e-12)


def test_resample_without_the_subset_is_undefined_and_left_out():
    logits, truth = draw(c=3)
    truth[:] = 1
    truth[0] = 2
    samples = bootstrap(Scores(logits, truth), 30, 0, subset=[2])
    missed = resample_counts(120, 30, 0)[:, 0] == 0
    assert 0 < missed.sum() < 30
    np.testing.assert_array_equal(samples["micro_auc"].isna(), missed)
    assert summary(samples).loc["micro_auc"].notna().all()


def test_summary_by_hand():
    table = summary(pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "b": [2.0] * 5}))
    assert table.loc["a"].to_dict() == pytest.approx({"sd": np.sqrt(2.5), "lower": 1.1, "upper": 4.9})
    assert table.loc["b"].to_dict() == {"sd": 0, "lower": 2, "upper": 2}


def test_sd_of_accuracy_is_the_binomial_one():
    logits, truth = draw(n=400)
    scores = Scores(logits, truth)
    p = scores.evaluate()["acc_at_1"]
    sd = summary(bootstrap(scores, 3000, 1)).loc["acc_at_1", "sd"]
    assert sd == pytest.approx(np.sqrt(p * (1 - p) / 400), rel=0.05)


def test_paired_difference():
    logits, truth = draw(skill=1.0)
    better = logits.copy()
    better[np.arange(120), truth] += 0.5
    a, b = Scores(better, truth), Scores(logits, truth)
    table = difference(a, b, 50, 3, subset=[1, 2, 3])
    samples = bootstrap(a, 50, 3, [1, 2, 3]) - bootstrap(b, 50, 3, [1, 2, 3])
    assert list(table.index) == list(METRICS) and list(table) == ["difference", "sd", "lower", "upper", "p"]
    kept = a.among([1, 2, 3])
    for name in METRICS:
        assert table.loc[name, "difference"] == a.evaluate(kept)[name] - b.evaluate(kept)[name]
        assert table.loc[name, "sd"] == samples[name].std()
        assert samples[name].min() <= table.loc[name, "lower"] <= table.loc[name, "upper"] <= samples[name].max()
    # The same stays: pairing takes out what both models find easy.
    assert table.loc["macro_auc", "sd"] < bootstrap(a, 50, 3, [1, 2, 3])["macro_auc"].std()
    whole = difference(a, b, 5, 3)["difference"]
    assert whole["acc_at_1"] == a.evaluate()["acc_at_1"] - b.evaluate()["acc_at_1"]


def test_a_model_does_not_differ_from_itself():
    scores = Scores(*draw())
    table = difference(scores, scores, 10, 0)
    assert (table.drop(columns="p") == 0).all(axis=None) and (table["p"] == 1).all()


def test_p_is_the_normal_one_and_near_a_paired_t_test():
    logits, truth = draw(n=300)
    b = Scores(logits, truth)
    right = np.flatnonzero(logits.argmax(1) == truth)
    other = logits.copy()
    other[right[:1], truth[right[:1]]] -= 20  # one stay lost, five won
    missed = np.flatnonzero(logits.argmax(1) != truth)[:5]
    other[missed, truth[missed]] += 20
    hits = (other.argmax(1) == truth).astype(float) - (logits.argmax(1) == truth)
    row = difference(Scores(other, truth), b, 4000, 3).loc["acc_at_1"]
    assert row["p"] == 2 * stats.norm.sf(row["difference"] / row["sd"])
    assert row["p"] == pytest.approx(stats.ttest_1samp(hits, 0).pvalue, abs=0.02) and 0.02 < row["p"] < 0.2
    better = logits.copy()
    better[np.arange(90), truth[:90]] += 9
    assert 0 < difference(Scores(better, truth), b, 20, 3).loc["acc_at_1", "p"] < 1e-6  # no floor of 20 resamples


# --- the BCa interval
def mean_of(x):
    return lambda counts: {"mean": counts @ x / counts.sum(axis=1)}


@given(st.integers(15, 40), st.integers(0, 2**32))  # of fewer, a resample may be the stays themselves, but for rounding
@settings(max_examples=20, deadline=None)
def test_bca_is_scipys_on_a_mean(n, seed):
    x = np.random.default_rng(seed).lognormal(sigma=1.5, size=n)  # skewed: percentile intervals are off
    draws = Draws(n, 300, seed)
    found = draws.difference([draws.evaluate(mean_of(x))]).loc["mean"]
    result = stats.bootstrap((x,), np.mean, n_resamples=300, method="BCa", rng=np.random.default_rng(seed))
    # scipy on the very same resamples: it is handed their means
    theirs = stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=0,
        method="BCa",
        bootstrap_result=_with(result, resample_counts(n, 300, seed) @ x / n),
    ).confidence_interval
    assert found[["lower", "upper"]].tolist() == pytest.approx([theirs.low, theirs.high], rel=1e-9)
    assert found["difference"] == pytest.approx(x.mean())


def _with(result, means):
    result.bootstrap_distribution = means
    return result


def test_bca_of_two_trainings_a_side_is_scipys_of_two_samples():
    """Stays and trainings are two samples: their influences add up as scipy adds those of several samples."""
    rng = np.random.default_rng(4)
    x, y = rng.lognormal(size=30), rng.lognormal(size=6)  # a stay's part, and a training's

    def measure(shift):
        return lambda counts: {"mean": counts @ x / counts.sum(axis=1) + shift}

    draws = Draws(30, 500, 2)
    found = draws.difference([draws.evaluate(measure(shift)) for shift in y]).loc["mean"]
    samples = resample_counts(30, 500, 2) @ x / 30 + resample_counts(6, 500, [2, 0]) @ y / 6

    def statistic(x, y, axis=-1):
        return x.mean(axis=axis) + y.mean(axis=axis)

    result = _with(stats.bootstrap((x, y), statistic, n_resamples=500, method="BCa"), samples)
    theirs = stats.bootstrap((x, y), statistic, n_resamples=0, method="BCa", bootstrap_result=result)
    assert found[["lower", "upper"]].tolist() == pytest.approx(list(theirs.confidence_interval), rel=1e-9)
    assert found["sd"] == pytest.approx(samples.std(ddof=1))


def test_bca_mends_the_interval_of_a_biased_number():
    """Resamples that lie above the value: the percentile interval may leave it out, this one does not."""
    samples = pd.DataFrame({"f1": np.linspace(0.25, 0.35, 1001)})
    value, without = pd.Series({"f1": 0.263}), pd.DataFrame({"f1": [0.26, 0.263, 0.266]})
    lower, upper = bca(value, samples, without).loc["f1"]
    bias = stats.norm.ppf(0.13)  # 130 of 1,001 lie below, and one at the value
    assert upper == pytest.approx(0.25 + 0.1 * stats.norm.cdf(2 * bias + 1.96), abs=2e-4)
    assert lower == pytest.approx(0.25, abs=1e-4) and lower < 0.263 < upper < samples["f1"].quantile(0.975)
    outside = bca(pd.Series({"f1": 0.2}), samples, without)  # all resamples on one side
    assert outside.loc["f1"].between(0.25, 0.35).all()


def test_the_jackknife_leaves_each_stay_out_once():
    assert left_out_counts(4, 0).tolist() == (~np.eye(4, dtype=bool)).tolist()
    counts = left_out_counts(2500, 7)
    assert counts.shape == (GROUPS, 2500) and (counts.sum(axis=0) == GROUPS - 1).all()
    assert set((~counts).sum(axis=1)) == {2, 3} and not np.array_equal(counts, left_out_counts(2500, 8))
    x = np.random.default_rng(0).lognormal(sigma=1.5, size=2500)
    draws = Draws(2500, 2000, 1)
    found = draws.difference([draws.evaluate(mean_of(x))]).loc["mean"]
    samples, without = pd.DataFrame({"mean": resample_counts(2500, 2000, 1) @ x / 2500}), (x.sum() - x) / 2499
    whole = bca(pd.Series({"mean": x.mean()}), samples, pd.DataFrame({"mean": without})).loc["mean"]
    spread = whole["upper"] - whole["lower"]
    assert found[["lower", "upper"]].tolist() == pytest.approx(whole.tolist(), abs=0.03 * spread)


# --- several trainings
def test_means_of_folds_are_compared_and_the_trainings_are_drawn():
    logits, truth = draw(n=60, c=4)
    noise = np.random.default_rng(9).normal(size=(5, 60, 4))
    ours, theirs = ([Scores(logits + scale * each, truth) for each in noise] for scale in (0.4, 1.5))
    table = difference(ours, theirs, 300, 5)
    accuracy = [[s.evaluate()["acc_at_1"] for s in side] for side in (ours, theirs)]
    assert table.loc["acc_at_1", "difference"] == pytest.approx(np.mean(accuracy[0]) - np.mean(accuracy[1]))
    each = np.stack(
        [(bootstrap(a, 300, 5) - bootstrap(b, 300, 5)).to_numpy() for a, b in zip(ours, theirs, strict=True)]
    )
    folds = resample_counts(5, 300, [5, 0])  # fold by fold in pairs
    by_loop = np.array([np.average(each[:, r], axis=0, weights=folds[r]) for r in range(300)])
    assert table["sd"].to_numpy() == pytest.approx(by_loop.std(axis=0, ddof=1))
    assert table.loc["acc_at_1", "sd"] > each.mean(axis=0)[:, 1].std(ddof=1)  # more than the stays alone
    apart = difference(ours[:2], theirs, 300, 5).loc["acc_at_1"]  # as many as there are on either side
    assert apart["difference"] == pytest.approx(np.mean(accuracy[0][:2]) - np.mean(accuracy[1]))
    alone = difference(ours[:1], theirs[:1], 300, 5)
    pd.testing.assert_frame_equal(alone, difference(ours[0], theirs[0], 300, 5))


def test_refuses():
    logits, truth = draw()
    scores = Scores(logits, truth)
    with pytest.raises(StudyError, match="resamples is 0"):
        bootstrap(scores, 0, 1)
    with pytest.raises(StudyError, match="n is 0"):
        resample_counts(0, 5, 1)
    with pytest.raises(StudyError, match="label index"):
        bootstrap(scores, 5, 1, subset=[99])
    with pytest.raises(StudyError, match="same stays in the same order"):
        difference(scores, Scores(logits, truth[::-1]), 5, 1)
    with pytest.raises(StudyError, match="same stays in the same order"):
        difference([scores, scores], [scores, Scores(logits, truth[::-1])], 5, 1)
    with pytest.raises(StudyError, match="same stays in the same order"):
        difference(scores, Scores(np.c_[logits, logits], truth), 5, 1)
