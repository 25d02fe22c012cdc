"""Labels are told from images by what a file says, its type and a few voxels."""

from __future__ import annotations

import numpy as np
import pytest

from array_volume import ArrayVolume
from floodem.volumes.kinds import looks_like_labels
from floodem.volumes.volume import Kind


def noise(dtype):
    return np.random.default_rng(0).integers(40, 210, (9, 40, 50)).astype(dtype)


def objects(dtype):
    labels = np.zeros((9, 40, 50), dtype)
    labels[:, 2:20, 5:45] = 7
    labels[:, 22:38, 5:45] = 90
    return labels


@pytest.mark.parametrize(
    ("array", "kind", "is_labels"),
    [
        (objects(np.uint8), None, True),
        (objects(np.int16), None, True),
        (objects(np.uint16), Kind.IMAGE, False),
        (objects(np.float32), Kind.LABELS, False),
        (noise(np.uint8), None, False),
        (noise(np.uint16), Kind.LABELS, True),
        (noise(np.uint32), None, True),
        (noise(np.uint64), Kind.IMAGE, False),
        (noise(np.float64), None, False),
        (np.zeros((3, 3, 3), np.uint8), None, False),
        (np.ones((3, 3, 1), np.uint8), None, False),
    ],
)
def test_what_is_declared_is_believed_before_type_and_voxels(array, kind, is_labels):
    assert looks_like_labels(ArrayVolume(array, kind=kind)) is is_labels


def test_a_guess_reads_few_sections_where_each_is_large():
    array = np.broadcast_to(np.uint16(1), (300, 20_000, 20_000))
    volume = ArrayVolume(array, chunks=(1, 20_000, 20_000))
    looks_like_labels(volume)
    assert [box.shape for box in volume.reads] == [(1, 64, 64)]
    small = ArrayVolume(array, chunks=(1, 64, 64))
    looks_like_labels(small)
    assert [box.shape for box in small.reads] == [(64, 64, 64)]
