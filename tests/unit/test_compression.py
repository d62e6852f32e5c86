"""Bodies are compressed where that makes them smaller, and come back as they were."""

from __future__ import annotations

import os

import pytest
from kombu.compression import decompress

from dispatch.conf import DispatchSettings
from tasks_app.messages.compression import ABOVE_BYTES, packed
from workers_app.conf import WorkerSettings

LARGE = b'{"text": "what repeats itself"}' * 1000


def test_a_large_body_travels_small_and_kombu_unpacks_it():
    small, how = packed(LARGE, ABOVE_BYTES)
    assert len(small) < len(LARGE) / 10
    assert decompress(small, how["compression"]) == LARGE


@pytest.mark.parametrize("above", [len(LARGE), len(LARGE) + 1, 0])
def test_what_is_not_above_the_bound_stays_as_it_is(above):
    assert packed(LARGE, above) == (LARGE, {})


def test_what_does_not_get_smaller_stays_as_it_is():
    random = os.urandom(50_000)
    assert packed(random, ABOVE_BYTES) == (random, {})


@pytest.mark.parametrize("section", [DispatchSettings, WorkerSettings])
def test_a_bound_below_zero_is_refused(section):
    with pytest.raises(ValueError, match="compress_above_bytes"):
        section(compress_above_bytes=-1)
