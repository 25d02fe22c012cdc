from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floodem.flooding.movement import MoveQueue, face_peaks
from reference import movement as twin


@st.composite
def views(draw):
    deltas = draw(st.tuples(*[st.integers(0, 3)] * 3))
    shape = tuple(2 * (delta + draw(st.integers(0, 2))) + 1 for delta in deltas)
    # few distinct values, so that ties are common
    levels = st.sampled_from([-3.0, -0.5, 0.0, 1.0, 2.0])
    return draw(hnp.arrays(np.float32, shape, elements=levels)), deltas


@given(view=views(), threshold=st.sampled_from([-5.0, 0.0, 1.0, 9.0]))
def test_face_peaks_equal_a_search_voxel_by_voxel(view, threshold):
    logits, deltas = view
    found = face_peaks(logits, deltas=deltas, threshold_logit=threshold)
    assert found == twin.face_peaks(logits, deltas, threshold)


def test_a_cell_is_visited_once_and_the_seed_lies_in_the_middle_of_its_cell():
    queue = MoveQueue((10, 10, 10), deltas=(4, 8, 8))
    assert queue.cell((8, 6, 6)) == queue.cell((11, 13, 13)) == (0, 0, 0)
    assert queue.cell((12, 10, 10)) == (1, 0, 0)
    assert queue.cell((7, 10, 10)) == (-1, 0, 0)
    assert queue.pop_unvisited() == (10, 10, 10)
    queue.visit((10, 10, 10), [(1.0, (4, 0, 0)), (0.5, (0, 1, 0)), (0.4, (4, 1, 0))])
    assert queue.pop_unvisited() == (14, 10, 10)
    queue.visit((14, 10, 10), [])
    # (10, 11, 10) and (14, 11, 10) lie in cells that were visited
    assert queue.pop_unvisited() is None


def test_an_axis_without_steps_is_not_walked():
    logits = np.ones((1, 5, 5), np.float32)
    found = face_peaks(logits, deltas=(0, 1, 1), threshold_logit=0.0)
    assert found
    assert all(offset[0] == 0 for _, offset in found)
