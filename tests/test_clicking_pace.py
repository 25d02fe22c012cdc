"""How often growth is shown, with pages that draw quickly and slowly."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodem.viewer.clicking.pace import (
    SHARE_OF_DRAWING,
    SHOW_AT_LEAST_EVERY_S,
    SHOW_EVERY_S,
    Pace,
)

CALL_S = 0.01


def shown_in(seconds, *, drawing_s):
    """Show growth to a page that takes so long for each change; when, and how long it drew."""
    now, drawn = 0.0, 0.0
    pace = Pace(clock=lambda: now)
    shown, ends, is_wanted = [], None, False
    while now < seconds:
        if ends is not None and now >= ends:
            pace.has_drawn(drawing_s)
            drawn += drawing_s
            ends, is_wanted = (now + drawing_s if is_wanted else None), False
        if pace.is_due():
            shown.append(now)
            pace.has_shown()
            if ends is None:
                ends = now + drawing_s
            else:
                is_wanted = True
        now += CALL_S
    return shown, drawn


def test_to_a_page_that_draws_quickly_growth_is_shown_five_times_a_second():
    shown, _ = shown_in(20, drawing_s=0.02)
    assert len(shown) == pytest.approx(20 / SHOW_EVERY_S, rel=0.1)


@pytest.mark.parametrize("drawing_s", [0.1, 0.2, 0.4])
def test_a_slow_page_draws_for_a_share_of_the_time(drawing_s):
    shown, drawn = shown_in(60, drawing_s=drawing_s)
    assert drawn / 60 == pytest.approx(SHARE_OF_DRAWING, rel=0.15)
    assert shown[1] - shown[0] < SHOW_AT_LEAST_EVERY_S


def test_a_very_slow_page_is_shown_something_all_the_same():
    shown, _ = shown_in(60, drawing_s=1.5)
    later = [when for when in shown if when > 5]
    assert len(later) == pytest.approx(55 / SHOW_AT_LEAST_EVERY_S, rel=0.1)


def test_a_page_that_says_nothing_is_taken_for_quick():
    shown, _ = shown_in(20, drawing_s=math.inf)
    assert len(shown) == pytest.approx(20 / SHOW_EVERY_S, rel=0.1)


def test_a_page_that_gets_quick_again_is_shown_more():
    pace = Pace()
    for _ in range(5):
        pace.has_drawn(1.0)
    assert pace.every_s == SHOW_AT_LEAST_EVERY_S
    for _ in range(10):
        pace.has_drawn(0.01)
    assert pace.every_s == SHOW_EVERY_S


def test_slow_pages_get_a_third_of_the_meshes_and_quick_ones_all():
    pace = Pace()
    assert [pace.takes_mesh() for _ in range(4)] == [True] * 4
    for _ in range(5):
        pace.has_drawn(1.0)
    assert [pace.takes_mesh() for _ in range(6)] == [False, False, True] * 2


@pytest.mark.parametrize("nonsense", [None, "1", [1], -1, math.nan, math.inf, {}])
def test_nonsense_about_drawing_is_not_heard(nonsense):
    pace = Pace()
    pace.has_drawn(nonsense)
    assert pace.every_s == SHOW_EVERY_S


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.integers()))
def test_whatever_pages_say_the_pace_stays_within_its_bounds(said):
    pace = Pace()
    for one in said:
        pace.has_drawn(one)
        assert SHOW_EVERY_S <= pace.every_s <= SHOW_AT_LEAST_EVERY_S
