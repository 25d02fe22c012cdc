r"""Addresses of the old programs: FILE:DATASET in every spelling, drive letters and servers."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.errors import FloodemError, UsageError
from floodem.legacy.addresses import file_and_dataset, named_addresses
from floodem.volumes import create_volume, open_volume
from floodem.volumes.location import parse_location

SEPARATORS = st.sampled_from([":", "@"])
WORDS = st.text("abcxyz0189_-", min_size=2, max_size=6)
NAMES = st.text("abcxyz0189_- .é", min_size=1, max_size=8).filter(
    lambda one: one == one.strip() and not one.endswith((".h5", ".hdf5"))
)
FOLDERS = st.sampled_from(
    [
        *("", "data/", "/data/a b/", "../", "./", "C:\\", "C:\\data\\em\\", "C:/data/", "d:"),
        *("gs://bucket/", "https://host:8080/a/", "s3://bucket/", "\\\\server\\share\\"),
        *("data@2019/", "a:b/"),
    ]
)
FILES = st.builds("{}{}{}".format, FOLDERS, WORDS, st.sampled_from([".h5", ".hdf5", ".H5", ".hdf"]))
DATASETS = st.builds("/".join, st.lists(WORDS, min_size=1, max_size=3))


@settings(max_examples=300, deadline=None)
@given(FILES, SEPARATORS, DATASETS)
def test_file_and_dataset_come_apart_at_either_separator(file, separator, dataset):
    address = file_and_dataset(f"{file}{separator}{dataset}")
    assert address == f"{file}@{dataset}"
    assert file_and_dataset(address) == address
    found = parse_location(address)
    assert (found.path, found.dataset, found.format) == (file, dataset, "hdf5")


@settings(max_examples=300, deadline=None)
@given(FILES)
def test_a_file_without_a_dataset_stays_as_it_is(file):
    assert file_and_dataset(file) == file


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(NAMES, SEPARATORS, FILES, SEPARATORS, DATASETS),
        max_size=4,
        unique_by=lambda one: one[0],
    )
)
def test_named_volumes_come_apart_with_mixed_separators(parts):
    # A name of one letter before \ is a drive, and reads as a volume without a name.
    parts = [one for one in parts if len(one[0]) > 1 or not one[2].startswith("\\")]
    found = named_addresses(["".join(one) for one in parts])
    assert [(one.name, one.address) for one in found] == [
        (name, f"{file}@{dataset}") for name, _, file, _, dataset in parts
    ]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("af.h5:af", "af.h5@af"),
        (r"C:\data\em.h5@raw", r"C:\data\em.h5@raw"),
        (r"C:\data\em.h5", r"C:\data\em.h5"),
        ("C:em.h5", "C:em.h5"),
        ("gs://bucket/em.h5:volumes/raw", "gs://bucket/em.h5@volumes/raw"),
        ("https://user@host:80/em.h5", "https://user@host:80/em.h5"),
        ("labels.dat:stack", "hdf5://labels.dat@stack"),
        (r"C:\labels.dat:stack", r"hdf5://C:\labels.dat@stack"),
        ("a:raw", "hdf5://a@raw"),
        ("em.zarr:raw", "em.zarr@raw"),
        ("zarr://em@raw", "zarr://em@raw"),
        ("precomputed://gs://bucket/em", "precomputed://gs://bucket/em"),
        ("sections", "sections"),
        (" em.h5:raw ", "em.h5@raw"),
        ("em.h5:a:b", "em.h5@a:b"),
    ],
)
def test_addresses_are_those_that_volumes_are_opened_by(text, address):
    assert file_and_dataset(text) == address


@pytest.mark.parametrize("text", ["", "  ", "em.h5:", "em.h5@", ":raw", "@raw"])
def test_a_part_that_is_empty_is_named(text):
    with pytest.raises(UsageError, match="write FILE:DATASET"):
        file_and_dataset(text)


@pytest.mark.parametrize(
    "entry",
    [
        *("", "validation1", "validation1:", ":em.h5:raw", "em.h5:raw", "data/em.h5:raw"),
        *(r"C:\data\em.h5:raw", "gs://bucket/em.h5:raw", "@", "a/b:em.h5:raw"),
    ],
)
def test_a_volume_without_a_name_is_refused_with_the_form(entry):
    with pytest.raises(UsageError, match=r"write NAME:FILE:DATASET"):
        named_addresses([entry])


def test_two_volumes_of_one_name_are_refused():
    with pytest.raises(UsageError, match="two volumes are called 'a'"):
        named_addresses(["a:x.h5:raw", "a@y.h5@raw"])


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused_in_words(text):
    for make in (file_and_dataset, lambda one: named_addresses([one])):
        try:
            found = make(text)
        except FloodemError as error:
            found = str(error)
        assert found


def test_files_with_unusual_endings_are_made_and_read_as_hdf5(tmp_path):
    address = file_and_dataset(f"{tmp_path / 'labels.dat'}:stack")
    labels = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    with create_volume(address, shape=(2, 2, 2), dtype=np.uint16) as volume:
        volume.write(volume.box, labels)
    with h5py.File(tmp_path / "labels.dat") as file:
        assert np.array_equal(file["stack"], labels)
    with open_volume(address) as volume:
        assert np.array_equal(volume.read(volume.box), labels)
