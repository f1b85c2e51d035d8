import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata

from drgstudy import casemix, drgs
from drgstudy.bootstrap import resample_counts
from drgstudy.study import StudyError

weights = st.integers(2, 30).flatmap(
    lambda n: st.tuples(*[arrays(float, n, elements=st.floats(0.1, 20))] * 2, st.permutations(range(n)))
)


def test_predicted_weights_by_hand():
    logits = np.log([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]).astype(np.float32)
    found = casemix.predicted_weights(logits, np.array([1.0, 2.0, 5.0]))
    assert found["top-1"].tolist() == [1.0, 5.0]
    assert found["expected"] == pytest.approx([0.5 + 0.6 + 1.0, 0.1 + 0.4 + 3.5], abs=1e-6)


def test_a_certain_model_expects_the_weight_of_its_top_drg():
    table = drgs.v34()["relative_weight"]
    logits = np.eye(len(table))[[5, 700, 100]] * 100
    found = casemix.predicted_weights(logits, table.to_numpy())
    np.testing.assert_allclose(found["expected"], found["top-1"])
    assert found["top-1"].tolist() == table.iloc[[5, 700, 100]].tolist()


def test_the_early_drg_papers_example():
    """500 stays at a case-mix index of 3.15, 5 % too much, at $6,000: $472,500."""
    true = np.tile([3.0, 3.3], 250)
    found = casemix.case_mix(true, 1.05 * true, resample_counts(500, 100, 0), 6000.0)
    value = found["value"]
    assert value["cmi_true"] == pytest.approx(3.15) and value["error_percent"] == pytest.approx(5)
    assert 5 * value["dollars_per_100"] == pytest.approx(472_500)
    # Paired: every resample is 5 % off, whichever stays were drawn.
    assert found.loc["error_percent", ["lower", "upper"]].tolist() == pytest.approx([5, 5])
    assert found.loc["cmi_true", "sd"] > 0


def test_errors_of_opposite_sign_cancel_only_in_the_total():
    found = casemix.case_mix(np.array([1.0, 3.0]), np.array([3.0, 1.0]), np.array([[1, 1], [2, 0]]), 6000.0)
    value = found["value"]
    assert value["error_percent"] == value["dollars_per_100"] == 0
    assert value["mae_weight"] == 2 and value["mae_dollars"] == 12_000
    assert found.loc["error_percent", "upper"] == pytest.approx(0.975 * 200)  # the second resample: 3 for 1


@given(weights)
@settings(max_examples=60, deadline=None)
def test_perfect_predictions_cost_nothing(drawn):
    true, _, _ = drawn
    found = casemix.case_mix(true, true, resample_counts(true.size, 20, 0), 6000.0)
    assert (found.drop(["cmi_true", "cmi_predicted"]) == 0).all(axis=None)
    assert found.loc["cmi_true"].equals(found.loc["cmi_predicted"])


@given(weights)
@settings(max_examples=60, deadline=None)
def test_no_order_matters_and_the_total_is_never_worse_than_the_stays(drawn):
    true, predicted, order = drawn
    counts = resample_counts(true.size, 20, 0)
    found = casemix.case_mix(true, predicted, counts, 6000.0)
    again = casemix.case_mix(true[order], predicted[order], counts[:, order], 6000.0)
    pd.testing.assert_frame_equal(found, again, atol=1e-6)
    value = found["value"]
    assert abs(value["dollars_per_100"]) <= 100 * value["mae_dollars"] + 1e-6
    assert value["error_percent"] == pytest.approx(100 * (predicted.mean() - true.mean()) / true.mean(), abs=1e-9)


def test_intervals_are_those_of_the_drawn_stays():
    rng = np.random.default_rng(0)
    true = rng.lognormal(size=50)
    predicted = true + rng.normal(scale=0.3, size=50)
    counts = resample_counts(50, 300, 2)
    drawn = [np.repeat(np.arange(50), count) for count in counts]
    errors = [100 * (predicted[d].sum() - true[d].sum()) / true[d].sum() for d in drawn]
    found = casemix.case_mix(true, predicted, counts, 1.0).loc["error_percent", ["lower", "upper"]]
    assert found.tolist() == pytest.approx(np.quantile(errors, [0.025, 0.975]))


def test_refuses():
    logits = np.zeros((2, 3))
    for bad in ([1.0, 2.0], [1.0, 2.0, np.nan], [1.0, 2.0, -1.0]):
        with pytest.raises(StudyError, match="one finite weight, zero or more, for each label"):
            casemix.predicted_weights(logits, np.array(bad))
    for true, predicted in (([1.0, 2.0], [1.0]), ([], []), ([0.0, 0.0], [1.0, 1.0])):
        with pytest.raises(StudyError, match="one of each for each stay"):
            casemix.case_mix(np.array(true), np.array(predicted), np.ones((1, len(true)), int), 6000.0)


# --- the early-DRG paper's errors by hour and by size, and its regression


@pytest.fixture
def cohort():
    """True weights of 300 stays, and what three models make of them: 10 % too little, noise, and 5 % too much."""
    rng = np.random.default_rng(3)
    true = rng.lognormal(0.8, 0.7, 300)
    return true, np.array([0.9 * true, true + rng.normal(0, 2, 300), 1.05 * true])


def test_cmi_error_by_hand():
    true = np.array([1.0, 3.0])
    assert casemix.cmi_error(true, np.array([1.0, 2.0])) == pytest.approx(25)
    assert casemix.cmi_error(true, np.array([3.0, 1.0])) == 0
    assert (
        casemix.cmi_error([4.0], [3.0])
        == casemix.errors_by_size(np.array([4.0]), np.array([[3.0]]), [1], 1)["mean"][0]
        == 25
    )
    assert casemix.cmi_error(true, np.array([[2.0, 3.0], [0.0, 0.0]])).tolist() == pytest.approx([25, 100])


@given(weights, st.floats(0.1, 10))
@settings(max_examples=60, deadline=None)
def test_cmi_error_is_that_of_case_mix_and_has_no_unit(drawn, factor):
    true, predicted, _ = drawn
    signed = casemix.case_mix(true, predicted, resample_counts(true.size, 2, 0), 1.0).loc["error_percent", "value"]
    assert casemix.cmi_error(true, predicted) == pytest.approx(abs(signed), abs=1e-9)
    assert casemix.cmi_error(factor * true, factor * predicted) == pytest.approx(abs(signed), abs=1e-9)


def test_errors_by_hour(cohort):
    true, predicted = cohort
    table = casemix.errors_by_hour(true, {-24: predicted[[0, 2]], 48: predicted[[2]]})
    assert table["hour"].tolist() == [-24, 48]
    assert table["each"][0] == pytest.approx([10, 5])
    assert table["mean"].tolist() == pytest.approx([7.5, 5]) and list(table) == ["hour", "mean", "sd", "each"]
    assert table["sd"][0] == pytest.approx(5 / np.sqrt(2)) and np.isnan(table["sd"][1])


def test_errors_by_size(cohort):
    true, predicted = cohort
    sizes = [20, 300, 1500]  # the last is larger than the cohort
    table = casemix.errors_by_size(true, predicted, sizes, draws=20, seed=1).set_index("size")
    assert (table["lower"] < table["mean"]).all() and (table["mean"] < table["upper"]).all()
    assert table["mean"].is_monotonic_decreasing  # of a noisy model's error
    # 60 populations of one size: the mean of a model that is 10 % off everywhere is 10, whichever stays are drawn.
    ten = casemix.errors_by_size(true, predicted[:1], sizes, seed=1)
    assert ten[["mean", "lower", "upper"]].to_numpy() == pytest.approx(np.full((3, 3), 10.0))
    assert ten["cmi_predicted"].tolist() == pytest.approx((0.9 * ten["cmi_true"]).tolist())
    # A size's populations depend on the seed, not on which other sizes or hours are asked for.
    alone = casemix.errors_by_size(true, predicted, [300], seed=1).set_index("size")
    pd.testing.assert_frame_equal(alone, table.loc[[300]])
    assert casemix.errors_by_size(true, predicted, [300], seed=2)["mean"][0] != alone.loc[300, "mean"]


def test_populations_are_not_shared_between_models(cohort):
    """Three equal models meet 60 different populations, so that their mean is surer than that of 20."""
    true, predicted = cohort
    one = casemix.errors_by_size(true, predicted[[1]], [200], seed=5).iloc[0]
    three = casemix.errors_by_size(true, predicted[[1, 1, 1]], [200], seed=5).iloc[0]
    assert three["upper"] - three["lower"] < one["upper"] - one["lower"]
    assert three["cmi_true"] != one["cmi_true"]


def test_errors_by_size_equal_a_plain_loop(cohort):
    true, predicted = cohort
    row = casemix.errors_by_size(true, predicted, [7], draws=3, seed=4).iloc[0]
    drawn = np.random.default_rng([4, 7]).integers(300, size=(3, 3, 7))
    errors = [
        casemix.cmi_error(true[rows], model[rows])
        for model, mine in zip(predicted, drawn, strict=True)
        for rows in mine
    ]
    rng = np.random.default_rng(4)
    means = [np.mean([errors[i] for i in rng.integers(9, size=9)]) for _ in range(1000)]
    guess = np.mean([model[rows].mean() for model, mine in zip(predicted, drawn, strict=True) for rows in mine])
    by_loop = {
        "size": 7,
        "cohort": 300,
        "mean": np.mean(errors),
        "lower": np.quantile(means, 0.025),
        "upper": np.quantile(means, 0.975),
    }
    assert row.to_dict() == pytest.approx(by_loop | {"cmi_true": true[drawn].mean(), "cmi_predicted": guess})
    by_default = casemix.errors_by_size(true, predicted, [7])
    pd.testing.assert_frame_equal(by_default, casemix.errors_by_size(true, predicted, [7], draws=20, seed=0))


@given(weights, st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_intervals_over_the_stays_equal_a_plain_loop(drawn, seed):
    """The change between two hours, and which of two is nearer, of two models: one resample after the other."""
    true, guess, order = drawn
    earlier, later = np.array([guess, guess[order]]), np.array([true[order], guess + 1])
    rng, changes, nearer = np.random.default_rng(seed), [], []
    folds = np.vstack([[1, 1], resample_counts(2, 40, [seed, 0])])  # of both models, how often each is drawn
    for resample in range(41):
        stays = rng.integers(true.size, size=true.size) if resample else np.arange(true.size)
        errors = [casemix.cmi_error(true[stays], models[:, stays]) for models in (earlier, later)]
        both = [np.average(error, weights=folds[resample]) for error in errors]
        changes.append([*both, both[1] - both[0]])
        nearer.append(np.abs(earlier - true)[:, stays].mean() - np.abs(later - true)[:, stays].mean())
    found = casemix.change_by_hour(true, earlier, later, 40, seed)
    assert found.index.tolist() == ["earlier", "later", "change"] and list(found) == ["value", "lower", "upper"]
    np.testing.assert_allclose(found["value"], changes[0], atol=1e-9)
    assert (found["lower"] >= np.min(changes[1:], axis=0) - 1e-9).all() and (found["lower"] <= found["upper"]).all()
    assert (found["upper"] <= np.max(changes[1:], axis=0) + 1e-9).all()
    found = casemix.mae_difference(true, earlier, later, 40, seed)
    assert list(found) == ["difference", "lower", "upper"]
    np.testing.assert_allclose(list(found.values()), [nearer[0], *np.quantile(nearer[1:], [0.025, 0.975])], atol=1e-9)


def test_what_averaging_hides_by_hand():
    true = np.array([1.0, 3.0, 2.0])
    predicted = np.array([[2.0, 2.0, 5.0], [1.0, 0.0, 2.0]])  # off by 1, -1, 3 and by 0, -3, 0
    found = casemix.cancelled(true, predicted, base_payment=300.0)
    assert found == pytest.approx({"stay_dollars": 400, "total_dollars": 300, "cancels": 0.25})
    assert casemix.cancelled(true, predicted)["stay_dollars"] == 8000


def test_payments_of_the_early_drg_papers_example():
    """500 stays at a case-mix index of 3.15, 5 % too little, at $6,000: $472,500."""
    true = np.tile([3.0, 3.3], 250)
    predicted = {24: np.array([0.94 * true, 0.96 * true]), 48: true[None]}
    table = casemix.payments(true, predicted, np.arange(500)).set_index("hour")
    assert table["cmi_true"].tolist() == pytest.approx([3.15, 3.15]) and table["stays"].tolist() == [500, 500]
    assert table["cohort"].tolist() == [500, 500]
    owed = table["dollars_true"] - table["dollars_predicted"]
    assert owed.tolist() == pytest.approx([472_500, 0], abs=1e-3)
    assert table.loc[24, ["lowest", "highest"]].tolist() == pytest.approx([0.94 * 3.15, 0.96 * 3.15])
    assert table["cmi_predicted"].tolist() == pytest.approx([0.95 * 3.15, 3.15])
    drawn = casemix.payments(true, predicted, np.array([1, 1, 1, 0]), base_payment=1000.0).set_index(
        "hour"
    )  # repeated stays
    assert drawn.loc[48, "dollars_true"] == pytest.approx(1000 * (3 * 3.3 + 3))


@given(weights)
@settings(max_examples=60, deadline=None)
def test_regression_scores(drawn):
    true, predicted, _ = drawn
    found = casemix.regression_scores(true, predicted)
    assert abs(predicted.mean() - true.mean()) <= found["mae"] + 1e-9 and found["mae"] <= found["rmse"] + 1e-9
    assert found["cmi_error_percent"] == casemix.cmi_error(true, predicted)
    if np.ptp(true) and np.ptp(predicted):
        ranks = np.corrcoef(rankdata(true), rankdata(predicted))[0, 1]
        assert found["spearman"] == pytest.approx(ranks, abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_regression_scores_by_hand():
    found = casemix.regression_scores(np.array([1.0, 2.0, 6.0]), np.array([2.0, 4.0, 6.0]))
    assert found == pytest.approx({"mae": 1, "rmse": np.sqrt(5 / 3), "spearman": 1, "cmi_error_percent": 100 / 3})
    assert np.isnan(casemix.regression_scores(np.array([1.0, 2.0]), np.array([3.0, 3.0]))["spearman"])


def test_refuses_populations_that_have_no_index():
    missing, worthless = ([1.0, 2.0], [1.0, np.nan]), ([[1.0, 2.0], [0.0, 0.0]], [1.0, 1.0])
    for true, predicted in (([1.0, 2.0], [1.0]), ([], []), ([0.0, 0.0], [1.0, 1.0]), missing, worthless):
        with pytest.raises(StudyError, match="one finite weight of each for each stay"):
            casemix.cmi_error(np.array(true), np.array(predicted))
    for sizes, draws in (([200, 0], 20), ([200], 0)):
        with pytest.raises(StudyError, match="populations need at least 1 of each"):
            casemix.errors_by_size(np.ones(5), np.ones((2, 5)), sizes, draws)
