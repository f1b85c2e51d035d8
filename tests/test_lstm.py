"""The LSTM against its equations written out, and the trainer's promises where inputs are measurements, not tokens."""

import numpy as np
import pytest
from scipy.special import expit

from drgstudy import models
from drgstudy.models import lstm
from drgstudy.study import StudyError

SETTINGS = dict(hidden=8, epochs=10.0, batch_size=8, learning_rate=2e-2, patience=0)
LABELS = ["001", "002", "003"]


@pytest.fixture
def stays():
    """Sixty stays, six hours, five variables: the label is the variable that is raised, in one hour of the stay."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    measurements = rng.normal(0, 0.2, (60, 6, 5)).astype(np.float32)
    measurements[np.arange(60), rng.integers(0, 6, 60), y] += 3
    return measurements, y


def fitted(folder, stays, seed=0, validation=None, **changes):
    model = models.build("lstm", SETTINGS | changes, LABELS, folder, seed)
    return model, model.fit(*stays, validation)


def test_lstm_is_its_equations_learns_and_comes_back_from_its_folder(stays, tmp_path):
    measurements, y = stays
    model, _ = fitted(tmp_path, stays)
    logits = model.predict(measurements)
    assert logits.shape == (60, 3) and logits.dtype == np.float32 and (logits.argmax(1) == y).mean() > 0.9

    w = {name: value.numpy().astype(float) for name, value in model.net.state_dict().items()}
    hidden = memory = np.zeros((60, 8))
    for hour in measurements.transpose(1, 0, 2).astype(float):
        gates = hour @ w["lstm.weight_ih_l0"].T + w["lstm.bias_ih_l0"]
        gates = gates + hidden @ w["lstm.weight_hh_l0"].T + w["lstm.bias_hh_l0"]
        take, keep, new, show = np.split(gates, 4, axis=1)
        memory = expit(keep) * memory + expit(take) * np.tanh(new)
        hidden = expit(show) * np.tanh(memory)
    np.testing.assert_allclose(logits, hidden @ w["score.weight"].T + w["score.bias"], rtol=1e-4, atol=1e-4)

    again = models.build("lstm", SETTINGS, LABELS, tmp_path, 9)
    again.restore()
    np.testing.assert_array_equal(again.predict(measurements), logits)
    same, _ = fitted(tmp_path / "same", stays)
    np.testing.assert_array_equal(same.predict(measurements), logits)


def test_only_the_first_hours_are_read(stays, tmp_path):
    measurements = stays[0]
    model, cost = fitted(tmp_path, stays, max_tokens=4, epochs=1.0)
    changed = measurements.copy()
    changed[:, 4:] += 9
    np.testing.assert_array_equal(model.predict(changed), model.predict(measurements))
    assert cost["train_tokens"] == 4 * 60 and lstm.Settings().max_tokens == 48
    changed[:, 3] += 9
    assert (model.predict(changed) != model.predict(measurements)).any()


class Killed(Exception):
    pass


@pytest.mark.parametrize("judged", [False, True])
def test_a_killed_run_goes_on_to_the_same_weights(stays, tmp_path, monkeypatch, judged):
    changes = dict(epochs=3.0, checkpoint_steps=5, validation=(stays[0][::5], stays[1][::5]) if judged else None)
    whole, _ = fitted(tmp_path / "whole", stays, **changes)

    def kill(self, args, state, control, **kwargs):
        if state.global_step == 10:
            raise Killed

    monkeypatch.setattr("drgstudy.checkpoints.Clock.on_step_end", kill)
    with pytest.raises(Killed):
        fitted(tmp_path / "broken", stays, **changes)
    monkeypatch.undo()
    again, cost = fitted(tmp_path / "broken", stays, **changes)
    assert cost["seconds_before_kill"] > 0
    np.testing.assert_allclose(again.predict(stays[0]), whole.predict(stays[0]), rtol=1e-4, atol=1e-5)


def test_bad_measurements_are_one_sentence(stays, tmp_path):
    measurements, y = stays
    for bad in (measurements[0], np.where(measurements > 2.5, np.nan, measurements)):
        with pytest.raises(StudyError, match=r"inputs\.measured") as error:
            fitted(tmp_path, (bad, y[: len(bad)]))
        assert "\n" not in str(error.value)
