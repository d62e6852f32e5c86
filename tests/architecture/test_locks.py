"""The locks are complete, and name no place that only one machine knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.txt", "requirements-dev.txt")


def pins(name: str) -> dict[str, str]:
    """Package → version."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_exact_and_hashed_and_no_index_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    entries = re.split(r"\n(?! )", text.strip())
    assert len(entries) == len(pins(name))
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted", text)


def test_the_development_lock_holds_the_same_versions() -> None:
    assert pins("requirements.txt").items() <= pins("requirements-dev.txt").items()


def test_every_wanted_package_is_locked() -> None:
    wanted = re.findall(r"^([A-Za-z0-9._-]+)", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    # A lock writes names in their normal form.
    assert {re.sub(r"[._-]+", "-", name).lower() for name in wanted} <= set(pins("requirements.txt"))
