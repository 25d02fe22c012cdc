"""Joining nodes in bounded memory, and what stands around it: long arrays and sorted ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floodem.assembly import scratch_array as scratch
from floodem.assembly.carried_ids import each_id_once
from floodem.assembly.joining import Joining, node_dtype
from floodem.assembly.scratch_array import scratch_array
from floodem.errors import ResourceError, StorageError
from reference.stitching_twin import smallest_of_components

NODES = 30


@st.composite
def graphs(draw):
    count = draw(st.integers(1, NODES))
    node = st.integers(0, count - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=60))
    return count, edges, draw(st.permutations(edges)), draw(st.integers(1, 61))


@settings(deadline=None)
@given(graphs())
def test_smallest_node_leads_whatever_the_order_and_the_batches(graph):
    count, edges, shuffled, batch = graph
    leads = np.arange(count, dtype=node_dtype(count))
    joining = Joining(leads)
    for start in range(0, len(shuffled), batch):
        a, b = zip(*shuffled[start : start + batch], strict=True)
        joining.join(np.array(a), np.array(b))
    expected = smallest_of_components(count, edges)
    assert joining.leaders(np.arange(count)).tolist() == expected
    # Asking remembers the short way.
    assert leads.tolist() == expected


def test_a_long_chain_that_is_joined_backwards_has_one_leader():
    count = 3000
    joining = Joining(np.arange(count, dtype=np.uint32))
    for node in range(count - 2, -1, -1):
        joining.join(np.array([node + 1]), np.array([node]))
    assert joining.leaders(np.array([count - 1])).tolist() == [0]


def test_joining_nothing_changes_nothing():
    leads = np.arange(3, dtype=np.uint32)
    Joining(leads).join(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert leads.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("count", "dtype"), [(0, "uint32"), (2**32, "uint32"), (2**32 + 1, "uint64")]
)
def test_nodes_are_numbered_by_the_narrowest_type(count, dtype):
    assert node_dtype(count) == dtype


@pytest.mark.parametrize("limit", [0, 2**20])
@pytest.mark.parametrize("counts_up", [True, False])
def test_long_arrays_are_the_same_in_memory_and_in_a_file(tmp_path, monkeypatch, limit, counts_up):
    monkeypatch.setattr(scratch, "IN_MEMORY_BYTES", limit)
    monkeypatch.setattr(scratch, "_CHUNK", 7)
    path = tmp_path / "folder" / "array"
    with scratch_array(path, 100, dtype=np.dtype(np.uint64), counts_up=counts_up) as array:
        assert array.tolist() == (list(range(100)) if counts_up else [0] * 100)
        array[3] = 2**63
        assert array[3] == 2**63
        assert path.exists() == (limit == 0)
    assert not path.exists()


def test_a_disk_that_is_too_small_for_the_nodes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY_BYTES", 0)
    with (
        pytest.raises(ResourceError, match="joining blocks needs"),
        scratch_array(tmp_path / "array", 2**60, dtype=np.dtype(np.uint64)),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_scratch_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY_BYTES", 0)
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(StorageError, match=r"cannot write .*file.array"),
        scratch_array(tmp_path / "file" / "array", 5, dtype=np.dtype(np.uint64)),
    ):
        pass


IDS = st.one_of(st.integers(1, 12), st.sampled_from([2**63, 2**64 - 1]))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(hnp.arrays(np.uint64, st.integers(0, 6), elements=IDS), max_size=12),
    run=st.integers(1, 9),
)
def test_each_carried_id_comes_once_whatever_fits_in_memory(parts, run, tmp_path):
    expected = sorted({one for part in parts for one in part.tolist()})
    with each_id_once(iter(parts), tmp_path / "scratch", run=run) as ids:
        assert ids.dtype == np.uint64
        assert ids.tolist() == expected
    assert not (tmp_path / "scratch").exists() or not list((tmp_path / "scratch").iterdir())


def test_sorted_ids_left_by_a_killed_process_are_not_taken(tmp_path):
    for name in ("carried", "carried-0", "carried-1"):
        (tmp_path / name).write_bytes(np.arange(100, 109, dtype=np.uint64).tobytes())
    parts = [np.array([one], np.uint64) for one in (3, 1, 2, 1)]
    with each_id_once(parts, tmp_path, run=1) as ids:
        assert ids.tolist() == [1, 2, 3]
