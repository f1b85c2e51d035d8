import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from drgstudy.bootstrap import bootstrap, difference, resample_counts, summary
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
    pd.testing.assert_frame_equal(found[["sd", "lower", "upper"]], summary(by_loop), atol=1e-12)


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
        assert table.loc[name, ["lower", "upper"]].tolist() == np.quantile(samples[name], [0.025, 0.975]).tolist()
    # The same stays: pairing takes out what both models find easy.
    assert table.loc["macro_auc", "sd"] < bootstrap(a, 50, 3, [1, 2, 3])["macro_auc"].std()
    whole = difference(a, b, 5, 3)["difference"]
    assert whole["acc_at_1"] == a.evaluate()["acc_at_1"] - b.evaluate()["acc_at_1"]


def test_a_model_does_not_differ_from_itself():
    scores = Scores(*draw())
    table = difference(scores, scores, 10, 0)
    assert (table.drop(columns="p") == 0).all(axis=None) and (table["p"] == 1).all()


def test_p_by_hand_and_against_a_paired_t_test():
    logits, truth = draw(n=300)
    better = logits.copy()
    better[np.arange(40), truth[:40]] += 3
    a, b = Scores(better, truth), Scores(logits, truth)
    table = difference(a, b, 999, 3)
    gains = (bootstrap(a, 999, 3) - bootstrap(b, 999, 3))["acc_at_1"]
    assert table.loc["acc_at_1", "p"] == 2 * (min((gains <= 0).sum(), (gains >= 0).sum()) + 1) / 1000
    right = np.flatnonzero(logits.argmax(1) == truth)
    other = logits.copy()
    other[right[:1], truth[right[:1]]] -= 20  # one stay lost, five won
    missed = np.flatnonzero(logits.argmax(1) != truth)[:5]
    other[missed, truth[missed]] += 20
    hits = (other.argmax(1) == truth).astype(float) - (logits.argmax(1) == truth)
    p = difference(Scores(other, truth), b, 4000, 3).loc["acc_at_1", "p"]
    assert p == pytest.approx(ttest_1samp(hits, 0).pvalue, abs=0.05) and 0.02 < p < 0.2


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
        difference(scores, Scores(np.c_[logits, logits], truth), 5, 1)
