"""Answers judged at each level of the system, and compared on the same resamples."""

import numpy as np
import pandas as pd
import pytest

from drgstudy import levels
from drgstudy.predictions import Predictions
from drgstudy.study import StudyError

N = 240


def made(named, truth):
    """Predictions that name the DRGs `named` for stays of the DRGs `truth`."""
    labels = np.array(["193", "194", "208", "470", "871"])  # pneumonia with MCC, with CC; ventilation; joint; sepsis
    logits = (labels == np.array(named)[:, None]).astype(np.float32)
    return Predictions(np.arange(len(truth)) + 7, np.searchsorted(labels, truth), labels, logits, {})


@pytest.fixture
def found():
    """Three runs, right in ever more stays from DRG to MDC."""
    rng, shares = np.random.default_rng(0), {"llama": 0.4, "tree": 0.55, "titles": 0.1}
    drawn = {run: rng.random(N)[:, None] < share + np.array([0, 0.15, 0.3]) for run, share in shares.items()}
    return {run: pd.DataFrame(hits, columns=list(levels.LEVELS)) for run, hits in drawn.items()}


GROUPS = {"all stays": np.ones(N, bool), "rare": np.arange(N) < 80, "none": np.zeros(N, bool)}


def test_an_answer_is_right_at_the_level_that_it_shares_with_the_truth():
    right = levels.right(made(["193", "194", "208", "470"], ["193", "193", "193", "193"]))
    assert right.columns.tolist() == ["DRG", "base DRG", "MDC"] and right.index.tolist() == [7, 8, 9, 10]
    assert right.to_numpy().tolist() == [[True] * 3, [False, True, True], [False, False, True], [False] * 3]


def test_differences_are_those_of_a_loop_over_the_same_resamples(found):
    table = levels.compared(found, GROUPS, 50, 3).set_index(["group", "level", "run"])
    assert set(table.index.get_level_values("group")) == {"all stays", "rare"}  # an empty group is left out
    rng, drawn = np.random.default_rng(3), []
    for _ in range(50):
        stays = rng.integers(N, size=N)
        stays = stays[GROUPS["rare"][stays]]
        drawn.append([found[run]["MDC"].to_numpy()[stays].mean() for run in ("llama", "tree")])
    llama, tree = np.array(drawn).T
    row = table.loc[("rare", "MDC", "tree")]
    assert row["stays"] == 80 and row["value"] == found["tree"]["MDC"][:80].mean()
    assert row[["lower", "upper"]].tolist() == pytest.approx(np.quantile(tree, [0.025, 0.975]))
    assert row["difference"] == pytest.approx((found["tree"]["MDC"].astype(int) - found["llama"]["MDC"])[:80].mean())
    ends = np.quantile(tree - llama, [0.025, 0.975])
    assert row[["difference_lower", "difference_upper"]].tolist() == pytest.approx(ends)
    assert table.xs("llama", level="run").filter(like="difference").isna().all(axis=None)


def test_a_run_against_itself_differs_by_nothing_and_of_two_the_sign_turns(found):
    ours, theirs = {"a": found["tree"], "b": found["llama"]}, {"b": found["llama"], "a": found["tree"]}
    one, two = (levels.compared(pair, GROUPS, 40, 1).dropna() for pair in (ours, theirs))
    np.testing.assert_allclose(one["difference"], -two["difference"].to_numpy())
    np.testing.assert_allclose(one["difference_lower"], -two["difference_upper"].to_numpy())
    same = levels.compared({"a": found["tree"], "b": found["tree"]}, GROUPS, 40, 1).dropna()
    assert not same.filter(like="difference").to_numpy().any()


def test_what_would_tell_of_few_is_left_out(found):
    few = {"all stays": GROUPS["all stays"], "five": np.arange(N) < 5, "all but five": np.arange(N) >= 5}
    assert set(levels.compared(found, few, 20, 1, 11)["group"]) == {"all stays"}
    assert set(levels.compared(found, few, 20, 1)["group"]) == set(few)
    near = np.arange(N) < 75  # of known size, and 5 fewer than the rare ones
    assert "rare" not in set(levels.compared(found, GROUPS, 20, 1, 11, (near,))["group"])
    with pytest.raises(StudyError, match="groups: none of five has test stays that can be shown"):
        levels.compared(found, {"five": few["five"]}, 20, 1, 11)


@pytest.mark.parametrize("seed", range(5))
def test_no_two_numbers_of_a_run_that_are_told_differ_by_few(found, seed):
    rng = np.random.default_rng(seed)
    hits = np.sort(rng.random((N, 1)) < 0.5 + np.array([0, 0.02, 0.08]), axis=1)
    found = found | {"tree": pd.DataFrame(hits, columns=list(levels.LEVELS))}
    known = rng.random(N) < 0.5
    table = levels.compared(found, GROUPS, 20, 1, 11, (known,))
    assert table["value"].isna().any()
    for run, rows in table.dropna(subset="value").groupby("run"):
        right = (rows["value"] * rows["stays"]).round()
        points = np.array([*zip(right, rows["stays"] - right, strict=True)])
        between = [np.abs(points[:, None] - [*points, (0, 0)])]
        hits, rare = found[run]["DRG"], points[(rows["stays"] < N).to_numpy()]
        between.append(np.abs(rare - ((hits & known).sum(), (~hits & known).sum())))
        assert not {n for of in between for n in of.ravel().tolist()} & set(range(1, 11))
    masked = table["value"].isna() | table["run"].map({"llama": True}).fillna(False)
    assert table.loc[masked, "difference_lower"].isna().all()


@pytest.mark.parametrize(("a", "b", "says"), [("tree", "llama", levels.HELPS), ("titles", "llama", levels.HARMS), ("llama", "llama", levels.SAME)])  # fmt: skip
def test_a_sentence_says_which_way_it_came_out(found, a, b, says):
    table = levels.compared({b: found[b], "x": found[a]}, GROUPS, 200, 1)
    names = {"x": "X", b: "other"}
    said = levels.sentence(table, "x", "all stays", "DRG", names)
    share = f"{100 * found[a]['DRG'].mean():.1f}"
    assert (
        said.startswith(
            f"Right DRG in 240 stays (all stays): X {share} %, other {100 * found[b]['DRG'].mean():.1f} %; "
        )
        and says in said
    )
    assert levels.sentence(table, "x", "none", "DRG", names) == (
        "Right DRG (none): not shown, for there are no such stays, or small counts would follow."
    )
