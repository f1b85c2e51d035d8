import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import make_smoothing_spline
from scipy.special import expit
from statsmodels.formula.api import glm
from statsmodels.genmod.families import Binomial

from drgstudy.spline import _n_knots, binomial_curve, smoothing_spline
from drgstudy.study import StudyError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "smooth_spline.json").read_text())


@pytest.mark.parametrize("case", GOLDEN)
def test_equals_r(case):
    r = GOLDEN[case]
    s = smoothing_spline(r["x"], r["y"])
    at = r["at"]
    assert s.n_knots == r["n_knots"]
    np.testing.assert_array_equal(s.x[at], r["x_at"])
    # Required: 1e-3 in the fit and 0.01 in df. The search is R's own, so it is far closer.
    np.testing.assert_allclose(s.fit[at], r["fit"], rtol=0, atol=1e-5)
    assert s.df == pytest.approx(r["df"], abs=2e-4)
    assert s.lam == pytest.approx(r["lambda"], rel=1e-4)
    # The band: sigma^2 = RSS / (n - df), and the leverage of one observation.
    fitted = s.curve(np.array(r["x"]))
    rss = ((r["y"] - fitted) ** 2).sum()
    se = np.sqrt(rss / (len(r["y"]) - r["df"]) * np.array(r["leverage"]))
    np.testing.assert_allclose(s.se[at], se, rtol=1e-4)
    np.testing.assert_allclose(s.upper - s.fit, 1.96 * s.se)
    np.testing.assert_allclose(s.fit - s.lower, 1.96 * s.se)
    assert s.r2 == pytest.approx(1 - rss / np.var(r["y"]) / len(r["y"]), abs=1e-6)


def test_equals_scipy_where_scipy_can():
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 1, 40))
    x[[0, -1]] = 0, 1  # R's lam is for x from 0 to 1
    y = np.sin(6 * x) + rng.normal(0, 0.2, 40)
    s = smoothing_spline(x, y)
    np.testing.assert_allclose(s.fit, make_smoothing_spline(x, y, lam=s.lam)(x), atol=2e-4)  # 0.333 is not a third

    def smoother(lam):
        return np.column_stack([make_smoothing_spline(x, e, lam=lam)(x) for e in np.eye(40)])

    hat = smoother(s.lam)
    assert s.df == pytest.approx(np.trace(hat), abs=0.005)
    np.testing.assert_allclose(s.se, s.sigma * np.sqrt(np.diag(hat)), rtol=1e-3)

    def gcv(lam):
        hat = smoother(lam)
        return ((y - hat @ y) ** 2).mean() / (1 - np.trace(hat) / 40) ** 2

    assert gcv(s.lam) < min(gcv(s.lam * 1.2), gcv(s.lam / 1.2))


def test_replicates_count_as_observations():
    rng = np.random.default_rng(1)
    x, y = np.arange(30.0), np.cos(np.arange(30) / 5) + rng.normal(0, 0.3, 30)
    noise = rng.normal(0, 0.3, 30)
    s = smoothing_spline(np.r_[x, x], np.r_[y + noise, y - noise])
    assert s.x.tolist() == x.tolist()
    assert s.sigma**2 == pytest.approx((2 * (noise**2).sum() + 2 * ((y - s.fit) ** 2).sum()) / (60 - s.df))


@given(st.integers(0, 2**32 - 1), st.integers(8, 70), st.floats(-1e3, 1e3), st.floats(0.01, 1e3))
@settings(max_examples=30, deadline=None)
def test_order_units_and_origin_do_not_matter(seed, n, shift, scale):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 200, n).astype(float)
    y = np.sin(x / 30) + rng.normal(0, 1, n)
    s, shuffled = smoothing_spline(x, y), rng.permutation(n)
    t = smoothing_spline(scale * x[shuffled], shift + scale * y[shuffled])
    # Where GCV falls for the curve through all points, rounding decides how close it comes.
    if s.df < 0.8 * s.x.size:
        assert t.df == pytest.approx(s.df, abs=1e-2)
        np.testing.assert_allclose(t.fit, shift + scale * s.fit, atol=1e-3 * scale)
    assert 2 - 1e-9 <= s.df <= s.x.size + 1e-9 and s.r2 <= 1


def test_a_straight_line_is_kept():
    x = np.r_[1, 2, 3, 5, 8, 13, 21, 34.0]
    s = smoothing_spline(x, 3 - 2 * x)
    np.testing.assert_allclose(s.fit, 3 - 2 * x, atol=1e-9)
    np.testing.assert_allclose(s.curve([4, 30]), [-5, -57], atol=1e-9)
    assert s.r2 == pytest.approx(1)
    np.testing.assert_allclose(smoothing_spline([4, 1, 2, 8], [8, 2, 4, 16]).fit, [2, 4, 8, 16])  # four x are enough


def test_crowded_x_is_as_good_as_any():
    x = np.exp(np.linspace(-12, 4, 45))  # R gives up here
    y = x / 50 + np.where(np.arange(45) % 2, 0.05, -0.05)
    s = smoothing_spline(x, y)
    assert np.isfinite(s.se).all() and 2 <= s.df < 45
    np.testing.assert_allclose(s.curve(x), s.fit, atol=1e-8)


def test_a_smoothing_parameter_at_its_bound_is_warned_of():
    x, noise = np.arange(40.0), np.random.default_rng(2).normal(size=40)
    peak = np.r_[np.ones(8), 0.75, np.ones(44)]  # 53 points, 50 knots: the knots reach all that differ
    assert smoothing_spline(np.arange(53), peak).at_bound == "rough"
    said = {kind: smoothing_spline(x, y).warning for kind, y in {
        "noise": noise, "no noise": np.sin(x / 3), "both": np.sin(x / 3) + noise / 5,
    }.items()}  # fmt: skip
    assert "a straight line" in said["noise"] and "a curve through every point" in said["no noise"]
    assert said["both"] == "" and "not to be compared with the paper's" in said["noise"]
    assert [case for case, r in GOLDEN.items() if smoothing_spline(r["x"], r["y"]).at_bound] == ["smoothest"]


def test_the_binomial_curve_equals_patsys_natural_spline():
    rng = np.random.default_rng(0)
    x, trials = np.arange(1.0, 61), rng.integers(1, 40, 60)
    hits = rng.binomial(trials, expit(2 - x / 20))
    curve = binomial_curve(x, hits, trials)
    theirs = glm(
        "right + wrong ~ cr(x, df=4) - 1", {"x": x, "right": hits, "wrong": trials - hits}, family=Binomial()
    ).fit()
    np.testing.assert_allclose(curve(x), theirs.fittedvalues, rtol=1e-6)
    # A trial is a trial: rows of one trial each give the same curve.
    each = np.repeat(x, trials), np.concatenate([np.arange(n) < k for k, n in zip(hits, trials, strict=True)])
    np.testing.assert_allclose(binomial_curve(*each, np.ones(trials.sum()))(x), curve(x), rtol=1e-6)


def test_a_dot_of_one_stay_bends_the_spline_but_not_the_binomial_curve():
    x, trials = np.arange(1.0, 21), np.full(20, 200)
    hits, trials[10] = np.full(20, 160), 1
    hits[10] = 0
    assert binomial_curve(x, hits, trials)(x) == pytest.approx(np.full(20, 0.8), abs=0.01)
    assert smoothing_spline(x, hits / trials).fit.mean() < 0.77


@pytest.mark.filterwarnings("error")
def test_the_binomial_curve_of_dots_that_are_all_0_or_1_stays_a_chance():
    at = binomial_curve([1, 2, 3, 4, 5, 6], [1, 1, 1, 0, 0, 0], [1] * 6)(np.linspace(1, 6, 50))
    assert ((at >= 0) & (at <= 1)).all() and at[0] > 0.99 and at[-1] < 0.01
    for x, hits, trials in (
        ([1, 2, 3], [1, 1, 0], [1, 1, 1]),
        ([1, 2, 3, 4], [2, 0, 0, 0], [1] * 4),
        ([1, 2, 3, 4], [0] * 4, [0] * 4),
    ):
        with pytest.raises(StudyError, match="no more hits than trials"):
            binomial_curve(x, hits, trials)


def test_constant_y_has_no_r2():
    s = smoothing_spline(np.arange(10), np.full(10, 0.1))
    np.testing.assert_allclose(s.fit, 0.1)
    assert np.isnan(s.r2)


def test_number_of_knots_is_rs():
    r = {
        4: 4,
        49: 49,
        50: 49,
        51: 50,
        100: 62,
        199: 99,
        200: 99,
        500: 118,
        723: 134,
        799: 139,
        800: 140,
        2000: 167,
        3199: 199,
        3200: 200,
        3201: 201,
        26244: 207,
    }
    assert {m: _n_knots(m) for m in r} == r


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 3, 4], "equal length"),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], "equal length"),
        ([1, 2, 3, 4, np.nan], [1, 2, 3, 4, 5], "without NaN"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, np.inf], "without NaN"),
        ([], [], "no spread"),
        ([1] * 12 + [2, 3, 4], np.arange(15), "no spread"),
        ([1, 2, 3, 1, 2, 3], np.arange(6), "at least 4"),
    ],
)
def test_refuses(x, y, message):
    with pytest.raises(StudyError, match=message):
        smoothing_spline(x, y)
