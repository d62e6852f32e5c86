"""Typed configuration sections: each app declares its own, the composition root fills `settings.SIGNALBOX`.

`settings.SIGNALBOX` is `{"tasks": {...}, "workers": {...}, "dispatch": {...}}`. An unknown key stops the start
with a suggestion, because a misspelt limit that is silently ignored is found in production.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigurationError(ValueError):
    """The configuration cannot be used; the message names the key and, where possible, the cure."""


def build(cls: type[T], values: Mapping[str, Any], *, section: str) -> T:
    """Make the section's dataclass from plain values.

    Raises ConfigurationError for unknown keys (with the nearest known one) and for values that the dataclass's
    own `__post_init__` refuses.
    """
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; known keys: {', '.join(sorted(known))}"
            raise ConfigurationError(f'unknown key "{key}" in section "{section}"{hint}')
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f'section "{section}": {error}') from error


def read(cls: type[T], section: str) -> T:
    """The section as configured in `settings.SIGNALBOX`, or all defaults where it is absent."""
    from django.conf import settings

    configured: Mapping[str, Any] = getattr(settings, "SIGNALBOX", {})
    return build(cls, configured.get(section, {}), section=section)


def accessor(cls: type[T], section: str) -> Callable[[], T]:
    """A function that reads the section at its first call and again after the setting was overridden (in tests)."""
    from django.core.signals import setting_changed

    @lru_cache(maxsize=1)
    def conf() -> T:
        return read(cls, section)

    def forget(*, setting: str, **_: object) -> None:
        if setting == "SIGNALBOX":
            conf.cache_clear()

    setting_changed.connect(forget, weak=False, dispatch_uid=f"signalbox.sections.{section}")
    return conf


def require_positive(instance: object, *names: str) -> None:
    """Raise ValueError unless each named attribute is a number above zero."""
    for name in names:
        value = getattr(instance, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"{name} must be a number above 0, not {value!r}")
