import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import f1_score, roc_auc_score, top_k_accuracy_score

from drgstudy.metrics import METRICS, Scores, _softmax, share
from drgstudy.study import StudyError


def reference(logits, truth):
    """The six metrics by scikit-learn, one label at a time."""
    c, present = logits.shape[1], np.unique(truth)
    p = softmax(logits.astype(np.float64), axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k at or above the number of labels
        top = [top_k_accuracy_score(truth, logits, k=k, labels=np.arange(c)) for k in (1, 5, 10)]
    aucs = [roc_auc_score(truth == j, p[:, j]) for j in present if not (truth == j).all()]
    return {
        "macro_f1": f1_score(truth, logits.argmax(axis=1), labels=present, average="macro", zero_division=0),
        **dict(zip(["acc_at_1", "acc_at_5", "acc_at_10"], top, strict=True)),
        "macro_auc": np.mean(aucs) if aucs else np.nan,
        "micro_auc": roc_auc_score((truth[:, None] == np.arange(c)).ravel(), p.ravel()),
    }


def same(ours, theirs):
    assert list(ours) == list(METRICS)
    assert ours == pytest.approx(theirs, abs=1e-12, rel=0, nan_ok=True)


def draw(seed, n, c, kind=np.float32, skill=1.0):
    rng = np.random.default_rng(seed)
    truth = rng.choice(c, n, p=np.arange(c, 0, -1) ** 2 / (np.arange(c, 0, -1) ** 2).sum())  # rare labels, some absent
    logits = rng.normal(size=(n, c))
    logits[np.arange(n), truth] += skill
    return (np.round(2 * logits) if kind is int else logits).astype(kind), truth


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, int])
@pytest.mark.parametrize(("n", "c"), [(40, 3), (300, 30), (900, 80)])  # the last has more than 2**16 scores
def test_equals_scikit_learn(n, c, kind):
    logits, truth = draw(n, n, c, kind)
    same(Scores(logits, truth).evaluate(), reference(logits, truth))


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn_where_nearly_all_scores_tie(seed):
    rng = np.random.default_rng(seed)
    logits, truth = rng.integers(0, 2, (60, 12)), rng.integers(0, 12, 60)
    same(Scores(logits, truth).evaluate(), reference(logits, truth))


def test_all_scores_equal():
    values = Scores(np.zeros((12, 12)), np.arange(12)).evaluate()
    # Of equal logits the last labels are the top ones; the prediction behind F1 is the first label.
    assert values == pytest.approx(
        {
            "macro_f1": 2 / 13 / 12,
            "acc_at_1": 1 / 12,
            "acc_at_5": 5 / 12,
            "acc_at_10": 10 / 12,
            "macro_auc": 0.5,
            "micro_auc": 0.5,
        }
    )


@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.integers(3, 14), st.sampled_from([np.float64, int]), st.data())
@settings(max_examples=60, deadline=None)
def test_counts_repeat_stays(seed, n, c, kind, data):
    logits, truth = draw(seed, n, c, kind)
    counts = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n).filter(any)))
    values = Scores(logits, truth).evaluate(counts)
    same(values, Scores(logits.repeat(counts, axis=0), truth.repeat(counts)).evaluate())
    same(values, reference(logits.repeat(counts, axis=0), truth.repeat(counts)))


@given(st.integers(0, 2**32 - 1), st.integers(3, 30), st.integers(2, 14), st.integers(-8, 8))
@settings(max_examples=30, deadline=None)
def test_neither_order_nor_a_stays_level_matters(seed, n, c, level):
    logits, truth = draw(seed, n, c)
    rng, values = np.random.default_rng(seed), Scores(logits, truth).evaluate()
    stays, labels = rng.permutation(n), rng.permutation(c)  # no ties, so that the labels' order is free
    same(Scores(logits[stays], truth[stays]).evaluate(), values)
    same(Scores(logits[:, labels], np.argsort(labels)[truth]).evaluate(), values)
    same(Scores((16 * logits).astype(int) + level * np.arange(n)[:, None], truth).evaluate(),
         Scores((16 * logits).astype(int), truth).evaluate())  # fmt: skip


def test_many_resamples_at_once_equal_one_by_one():
    logits, truth = draw(1, 50, 8)
    scores, counts = Scores(logits, truth), np.random.default_rng(2).integers(0, 3, (7, 50))
    together = scores.evaluate(counts)
    for i, row in enumerate(counts):
        same({name: values[i] for name, values in together.items()}, scores.evaluate(row))


@pytest.mark.parametrize("times", [15, 16, 100_003])
def test_large_counts_stay_exact(times):
    logits, truth = draw(3, 1000, 80, skill=8.0)  # nearly all negatives lie below all positives: one long stretch
    scores = Scores(logits, truth)
    assert scores.evaluate(np.full(1000, times)) == pytest.approx(scores.evaluate(), abs=1e-14, rel=0)


def test_a_stay_never_drawn_does_not_matter():
    logits, truth = draw(4, 30, 6)
    other = logits.copy()
    other[7] = -other[7] * 9
    counts = np.ones(30, int)
    counts[7] = 0
    same(Scores(logits, truth).evaluate(counts), Scores(other, truth).evaluate(counts))


PROBABILITIES = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.6, 0.1], [0.5, 0.1, 0.4]])
BY_HAND = {
    # predicted 0, 1, 1, 0; F1 of the labels 2/4, 2/3, 0; AUC 2/4, 3/3, 3/3; pairs won 8, 3, 8, 6 of 8
    (0, 1, 2): {"macro_f1": 7 / 18, "acc_at_1": 1 / 2, "macro_auc": 5 / 6, "micro_auc": 25 / 32},
    # stays 0, 1, 3; stay 1 is given label 1, outside of the subset; AUC 1/2 and 2/2; pairs won 6, 2, 5 of 6
    (0, 2): {"macro_f1": 1 / 4, "acc_at_1": 1 / 3, "macro_auc": 3 / 4, "micro_auc": 12 / 18},
    # stays 0 and 1 share their only label: no negatives for its AUC; pairs won 4 and 1 of 4
    (0,): {"macro_f1": 2 / 3, "acc_at_1": 1 / 2, "macro_auc": np.nan, "micro_auc": 5 / 8},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("subset", BY_HAND)
def test_by_hand(subset):
    scores = Scores(np.log(PROBABILITIES), np.array([0, 0, 1, 2]))
    values = scores.evaluate(scores.among(subset))
    assert values == pytest.approx(BY_HAND[subset] | {"acc_at_5": 1, "acc_at_10": 1}, nan_ok=True)


def test_subset_equals_scoring_its_stays_alone():
    logits, truth = draw(5, 200, 20)
    scores = Scores(logits, truth)
    for top in ([0, 1, 2], np.arange(10)):
        kept = np.isin(truth, top)
        same(scores.evaluate(scores.among(top)), reference(logits[kept], truth[kept]))


def test_one_stay_and_two_labels():
    assert Scores([[0.0, 1.0]], [1]).evaluate() == pytest.approx(
        {"macro_f1": 1, "acc_at_1": 1, "acc_at_5": 1, "acc_at_10": 1, "macro_auc": np.nan, "micro_auc": 1}, nan_ok=True
    )


@pytest.mark.filterwarnings("error")
def test_nothing_drawn_is_undefined():
    logits, truth = draw(6, 10, 4)
    assert all(np.isnan(value) for value in Scores(logits, truth).evaluate(np.zeros(10, int)).values())


def test_softmax_is_scipys_to_the_bit():
    for kind in (np.float32, np.float64, int):
        logits = draw(7, 100, 50, kind)[0]
        np.testing.assert_array_equal(_softmax(logits), softmax(logits.astype(np.float64), axis=1))


GOOD = np.zeros((3, 4)), np.array([0, 1, 3])


@pytest.mark.parametrize(
    ("logits", "truth", "message"),
    [
        (np.zeros(3), GOOD[1], "logits has shape"),
        (np.zeros((0, 4)), np.zeros(0, int), "at least one"),
        (np.zeros((3, 1)), np.zeros(3, int), "at least two"),
        (np.full((3, 4), "a"), GOOD[1], "row of numbers"),
        (np.where(np.eye(3, 4), np.nan, 0), GOOD[1], "NaN or infinity"),
        (np.where(np.eye(3, 4), -np.inf, 0), GOOD[1], "NaN or infinity"),
        (GOOD[0], np.array([0, 1]), "truth has shape"),
        (GOOD[0], GOOD[1].astype(float), "integer label index"),
        (GOOD[0], np.array([0, 1, 4]), "from 0 to 4"),
        (GOOD[0], np.array([-1, 1, 3]), "from -1 to 3"),
    ],
)
def test_refuses_scores(logits, truth, message):
    with pytest.raises(StudyError, match=message):
        Scores(logits, truth)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.ones(2, int), "3 stays"),
        (np.ones((2, 2), int), "3 stays"),
        (np.ones((1, 1, 3), int), "3 stays"),
        (np.ones((0, 3), int), "3 stays"),
        (np.ones(3), "whole numbers"),
        (np.array([1, -1, 1]), "negative"),
    ],
)
def test_refuses_counts(counts, message):
    with pytest.raises(StudyError, match=message):
        Scores(*GOOD).evaluate(counts)


@pytest.mark.parametrize(
    ("labels", "message"), [([2], "no stay"), ([], "label index"), ([4], "0 to 3"), ([0.0], "label index")]
)
def test_refuses_subset(labels, message):
    with pytest.raises(StudyError, match=message):
        Scores(*GOOD).among(labels)


def test_share_by_hand_and_at_its_ends():
    z, n = 1.959964, 10  # Wilson's interval of 8 in 10
    centre, reach = (0.8 + z**2 / 20) / (1 + z**2 / n), z * np.sqrt(0.8 * 0.2 / n + z**2 / 400) / (1 + z**2 / n)
    found = share(np.arange(n) < 8)
    assert found == pytest.approx({"value": 0.8, "lower": centre - reach, "upper": centre + reach}, abs=1e-6)
    never, always = share(np.zeros(9, bool)), share(np.ones(9, bool))
    assert (never["lower"], always["upper"]) == pytest.approx((0, 1))
    assert never["upper"] == pytest.approx(1 - always["lower"])
