"""A model's settings: a dataclass whose fields carry their help and limits, against which values are checked."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from drgstudy.study.problems import StudyError, short_repr


def setting(default, help: str, *, zero: bool = False, share: bool = False, choices: tuple = ()) -> Any:
    """A field of a model's settings, with its help for readers and its limits for `checked_settings`.

    Parameters
    ----------
    default : bool, int, float, str or list
        Values must have the same type.
    help : str
        What the setting is, for the table of settings in the notebook.
    zero : bool
        Whether a number may be 0; otherwise it must be above 0.
    share : bool
        Whether it is a share: at least 0 and less than 1.
    choices : tuple
        The allowed values; empty if there is no such list.
    """
    about = {"help": help, "zero": zero or share, "share": share, "choices": choices}
    kept = {"default_factory": default.copy} if isinstance(default, list) else {"default": default}
    return field(**kept, metadata=about)


def checked_settings(kind: type, values: dict):
    """An instance of the settings dataclass `kind`.

    Raises
    ------
    StudyError
        For an unknown key, a wrong type, or a value that the field does not allow.
    """
    defaults = vars(kind())
    if unknown := [key for key in values if key not in defaults]:
        raise StudyError(f"setting {short_repr(unknown[0])}: unknown; the settings are {', '.join(defaults)}")
    checked = {key: checked_value(f"setting {key}", value, defaults[key]) for key, value in values.items()}
    for key, value in checked.items():
        _check_limits(key, value, about_setting(kind, key))
    return kind(**checked)


def about_setting(kind: type, key: str) -> dict:
    """The help and limits that `setting` gave a field. A subclass that changes only the default inherits them."""
    fields = [known[key] for above in kind.__mro__ if key in (known := vars(above).get("__dataclass_fields__", {}))]
    return next((dict(field.metadata) for field in fields if field.metadata), {})


def _check_limits(key: str, value, limits: dict) -> None:
    if choices := limits.get("choices"):
        if value not in choices:
            raise StudyError(f"setting {key}: expected one of {choices}, got {short_repr(value)}")
    elif type(value) in (int, float):
        zero = limits.get("zero", False)
        if not (value > 0 or (value == 0 and zero)):
            raise StudyError(f"setting {key}: expected {'0 or more' if zero else 'more than 0'}, got {value}")
        if limits.get("share") and value >= 1:
            raise StudyError(f"setting {key}: expected a share, less than 1, got {value}")


def checked_value(name: str, value, default):
    """`value` if it has the type of `default` (an int becomes a float where one is expected), lists value by value.

    Raises StudyError, naming `name`, for another type and for a number that is not finite or too large.
    """
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise StudyError(
            f"{name}: expected {type(default).__name__}, like {short_repr(default)}, got {short_repr(value)}"
        )
    if isinstance(value, int | float) and not abs(value) < 2**63:  # which a NaN isn't either
        raise StudyError(f"{name}: expected a finite number below 2**63, got {short_repr(value)}")
    if isinstance(value, list) and default:
        return [checked_value(f"{name}, value {i}", each, default[0]) for i, each in enumerate(value, 1)]
    return value
