"""Blocks of a large volume are flooded one by one, and leave labels, tables and records."""

from __future__ import annotations

import numpy as np
import pytest

from flood_cases import SMALL, flood_tasks, read_labels
from floodem.assembly.floods import flood_block_task
from floodem.assembly.sources import close_sources
from floodem.flooding.request import SegmentRequest
from floodem.flooding.segment import segment
from floodem.volumes import open_volume


@pytest.fixture(autouse=True)
def _closed():
    yield
    close_sources()


def test_a_block_becomes_what_its_halo_alone_would(tmp_path):
    _, task = flood_tasks(tmp_path)
    made = flood_block_task(task)
    alone = segment(
        task.image.uri,
        tmp_path / "alone.zarr",
        model=task.model,
        request=SegmentRequest(options=SMALL, device="cpu", box=task.block.halo),
    )
    with open_volume(alone.uri) as volume:
        expected = volume.read()
    labels = read_labels(task)
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.uint32
    assert made["segments"] == alone.segments
    assert made["counters"] == alone.summary["counters"]
