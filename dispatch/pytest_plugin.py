"""The fixture `platform` for users' tests, switched on by `pytest_plugins = ["dispatch.pytest_plugin"]`.

A module of its own, so that `dispatch.testing` needs no pytest. Imports wait for the fixture: pytest reads plugins
before pytest-django has set Django up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dispatch.testing import Platform


@pytest.fixture
def platform(db: None) -> Iterator[Platform]:  # noqa: ARG001  (pytest-django's fixture opens the database)
    """The platform in this process, on the test's own database and on a clock that stands still."""
    from dispatch.testing import Platform

    with Platform() as made:
        yield made
