"""The smoothing spline of Figure 2a: cubic, smoothed by generalized cross-validation, as R's ``smooth.spline`` does.

scipy's ``make_smoothing_spline`` puts a knot at each x, so it fails on repeated and on crowded x. R takes fewer knots
than points and pools equal x.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import statsmodels.api as sm
from scipy.interpolate import BSpline, CubicSpline
from scipy.linalg import solve_triangular
from scipy.optimize import minimize_scalar
from scipy.special import expit
from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

from drgstudy.study import StudyError


@dataclass(frozen=True)
class SmoothingSpline:
    """A fitted curve at the m distinct x, ascending.

    Attributes
    ----------
    x, fit : numpy.ndarray of float64, shape (m,)
    se, lower, upper : numpy.ndarray of float64, shape (m,)
        Standard error of the Bayesian posterior, sigma times the root of an observation's leverage; fit -/+ 1.96 se.
    df, lam, sigma : float
        Equivalent degrees of freedom (trace of the smoother), the penalty's factor on R's scale (x from 0 to 1), and
        the root of RSS / (n - df) over all n observations.
    r2 : float
        1 - RSS / TSS over the observations, not over the means of equal x; NaN if y is constant.
    n_knots : int
    at_bound : str
        "smooth" if the search for lam ended at the upper end of its range, "rough" if it leaves no residuals, else "".
    curve : BSpline
        The fit at any x within the data's range: ``curve(grid)``.
    """

    x: np.ndarray
    fit: np.ndarray
    se: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    df: float
    lam: float
    sigma: float
    r2: float
    n_knots: int
    at_bound: str
    curve: BSpline

    @property
    def warning(self) -> str:
        """A sentence where the curve is not to be trusted, for its smoothing parameter ended at a bound; else ""."""
        if not self.at_bound:
            return ""
        what = {"smooth": "a straight line", "rough": "a curve through every point"}[self.at_bound]
        return (
            f"The spline's smoothing parameter ended at a bound: generalized cross-validation asks for {what}. There R's "
            "smooth.spline, npreg and this fit stop at different places, so degrees of freedom, R² and band are not to be "
            "compared with the paper's."
        )


def smoothing_spline(x, y) -> SmoothingSpline:
    """Fit a cubic smoothing spline to n observations.

    Minimises sum (y - f(x))^2 + lam * integral f''^2 over cubic splines with R's default knots; lam minimises
    (RSS / n) / (1 - df / n)^2.

    Parameters
    ----------
    x, y : array-like of float, shape (n,)
        In any order; x may repeat.

    Raises
    ------
    StudyError
        If x and y do not fit together or are not finite, x has fewer than four distinct values, or its quartiles are
        equal (R refuses this too).

    Notes
    -----
    Source: DRG-LLaMA, Figure 2a and Methods ("smoothing spline ... generalized cross-validation ... default
    parameters"); R's ``smooth.spline(x, y, cv = FALSE)``.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise StudyError(f"x and y have shapes {x.shape} and {y.shape}; give two columns of equal length without NaN")
    spread = np.subtract(*np.quantile(x, [0.75, 0.25])) if x.size else 0
    if not spread:
        raise StudyError("x has no spread between its quartiles; a smoothing spline needs x that differ")
    # Like R: x that agree to a millionth of the interquartile range are one.
    order = np.argsort(x)
    x, y = x[order], y[order]
    steps = np.round((x - x.mean()) / (1e-6 * spread))
    _, first, which, w = np.unique(steps, return_index=True, return_inverse=True, return_counts=True)
    if w.size < 4:
        raise StudyError(f"x has {w.size} distinct values; a smoothing spline needs at least 4")
    n, distinct, mean = x.size, x[first], np.bincount(which, y) / w
    replicates = ((y - mean[which]) ** 2).sum()  # what no curve can explain: different y at equal x

    # R scales x to 0..1 and takes evenly spaced ranks of the distinct x as knots.
    n_knots = _n_knots(distinct.size)
    scale = distinct[-1] - distinct[0]
    unit = (distinct - distinct[0]) / scale
    inner = unit[np.linspace(1, distinct.size, n_knots).astype(int) - 1]
    knots = np.concatenate([[0] * 3, inner, [1] * 3])
    basis = BSpline.design_matrix(unit, knots, 3).toarray()  # (m, n_knots + 2)
    # Second derivatives are linear between knots: m + b (t - 1/2), t from 0 to 1, whose square integrates to
    # m^2 + b^2 / 12. R writes 1/3 as 0.333, so the twelfth is 0.083; the exact one would move df by up to 0.007.
    bend = BSpline(knots, np.eye(n_knots + 2), 3).derivative(2)(inner)  # (n_knots, n_knots + 2)
    width = np.sqrt(np.diff(inner))[:, None]
    rough = np.vstack([width * (bend[1:] + bend[:-1]) / 2, np.sqrt(0.083) * width * np.diff(bend, axis=0)])
    scaled = np.sqrt(w)[:, None] * basis
    ratio = (scaled**2).sum(axis=0)[2:-3].sum() / (rough**2).sum(axis=0)[2:-3].sum()
    rotation, reduced = np.linalg.qr(scaled)
    target = rotation.T @ (np.sqrt(w) * mean)

    def solve(spar: float):
        """Coefficients, root of their precision, degrees of freedom, RSS and lam at R's smoothing parameter."""
        lam = ratio * 256 ** (3 * spar - 1)
        # Least squares by QR, for on crowded x the normal equations would lose all their digits.
        q, root = np.linalg.qr(np.vstack([reduced, np.sqrt(lam) * rough]))
        q = q[: len(reduced)]
        coefficients = solve_triangular(root, q.T @ target)
        rss = replicates + w @ (mean - basis @ coefficients) ** 2
        return coefficients, root, (q**2).sum(), rss, lam

    # R's search (Brent's, to 1e-4). Like R, take the curve of its last trial, which is that close to the best one.
    tried = []

    def gcv(spar: float) -> float:
        tried.append(spar)
        _, _, df, rss, _ = solve(spar)
        return rss / n / (1 - df / n) ** 2

    minimize_scalar(gcv, bounds=(-1.5, 1.5), method="bounded", options={"xatol": 1e-4})
    coefficients, root, df, rss, lam = solve(tried[-1])
    tss = ((y - y.mean()) ** 2).sum()
    # Where GCV falls for a curve through all points, rounding decides where the search stops: the curve tells, not lam.
    rough = rss <= 1e-8 * tss or df > min(distinct.size, n_knots + 2) - 0.01
    at_bound = "smooth" if tried[-1] > 1.5 - 1e-3 else "rough" if rough else ""
    fit, sigma = basis @ coefficients, np.sqrt(rss / (n - df))
    se = sigma * np.linalg.norm(solve_triangular(root, basis.T, trans="T"), axis=0)
    return SmoothingSpline(
        distinct,
        fit,
        se,
        fit - 1.96 * se,
        fit + 1.96 * se,
        float(df),
        float(lam),
        float(sigma),
        float(1 - rss / tss) if np.ptp(y) else float("nan"),
        n_knots,
        at_bound,
        BSpline(distinct[0] + scale * knots, coefficients, 3),
    )


def binomial_curve(x, hits, trials, df: int = 4) -> Callable[[np.ndarray], np.ndarray]:
    """The chance of a hit by x: a logistic regression on a natural cubic spline, in which each trial counts as one.

    The smoothing spline gives a share that was seen in one trial, 0 or 1, the same weight as one of a hundred.

    Parameters
    ----------
    x : array-like of float, shape (n,)
    hits, trials : array-like of int, shape (n,)
        Hits among the trials at each x; at least one trial.
    df : int
        Coefficients, and knots: at the ends and evenly spaced quantiles of the distinct x.

    Returns
    -------
    callable
        The fitted chance, from 0 to 1, at any x within the data's range.

    Notes
    -----
    Source: Hastie, Tibshirani and Friedman 2009, section 5.2.2 (natural splines in logistic regression). statsmodels' GLMGam
    has no working search for the penalty in version 0.15 (`select_penweight` fails), so the number of knots is fixed.
    """
    x, hits, trials = (np.asarray(each, float) for each in (x, hits, trials))
    if not x.size == hits.size == trials.size or (hits > trials).any() or (trials < 1).any() or np.unique(x).size < df:
        raise StudyError(
            f"x, hits and trials have {x.size}, {hits.size} and {trials.size} values; give one of each, at least {df} different "
            "x, at least one trial at each, and no more hits than trials"
        )
    knots = np.quantile(np.unique(x), np.linspace(0, 1, df))
    basis = CubicSpline(knots, np.eye(df), bc_type="natural")  # each column is 1 at its own knot, 0 at the others
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PerfectSeparationWarning)  # few dots, all 0 or 1: then the curve is a step
        fit = sm.GLM(np.column_stack([hits, trials - hits]), basis(x), family=sm.families.Binomial()).fit()
    return lambda at: expit(basis(at) @ fit.params)


def _n_knots(m: int) -> int:
    """R's ``.nknots.smspl``: m itself below 50; about 100, 140 and 200 for an m of 200, 800 and 3,200; rounded down."""
    if m < 50:
        return m
    if m >= 3200:
        return int(200 + (m - 3200) ** 0.2)
    return int(2 ** np.interp(m, [50, 200, 800, 3200], [math.log2(knots) for knots in (50, 100, 140, 200)]))
