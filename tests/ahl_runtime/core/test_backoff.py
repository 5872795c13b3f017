"""Pauses between attempts: they double up to their bound, and start anew after a success."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahl_runtime.core.backoff import Backoff

SECONDS = st.floats(1e-3, 1e3)
FAILURES = st.integers(1, 30)


def test_pauses_double_up_to_the_most() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(SECONDS, SECONDS, FAILURES)
def test_pauses_never_shrink_and_stay_within_their_bounds(first: float, most: float, failures: int) -> None:
    backoff = Backoff(first, most)
    pauses = [backoff.next() for _ in range(failures)]
    assert pauses[0] == min(first, most) and max(pauses) <= most
    assert all(later == pytest.approx(min(2 * earlier, most)) for earlier, later in pairwise(pauses))


@given(SECONDS, SECONDS, FAILURES)
def test_a_success_starts_them_anew(first: float, most: float, failures: int) -> None:
    backoff = Backoff(first, most)
    before = [backoff.next() for _ in range(failures)]
    backoff.reset()
    assert [backoff.next() for _ in range(failures)] == before
