import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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
