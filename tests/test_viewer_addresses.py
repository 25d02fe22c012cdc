"""Who reads what the viewer is given by name, and what of it other people may see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodem.errors import UsageError
from floodem.viewer.addresses import parse_address, public_url, with_format

OURS, THEIRS = "floodem", "client"


@pytest.mark.parametrize(
    ("text", "reader", "as_what"),
    [
        ("em.h5@raw", OURS, "em.h5@raw"),
        (r"C:\data\em.h5@raw", OURS, r"C:\data\em.h5@raw"),
        ("file:///data/em.zarr", OURS, "file:///data/em.zarr"),
        ("zarr2://em.zarr", OURS, "zarr://em.zarr"),
        ("gs://bucket/em", OURS, "gs://bucket/em"),
        ("precomputed://s3://bucket/em", OURS, "precomputed://s3://bucket/em"),
        ("gs://bucket/em|zarr2:", OURS, "zarr://gs://bucket/em"),
        ("gs://bucket/em|precomputed:", OURS, "precomputed://gs://bucket/em"),
        ("https://host/em.h5@raw", OURS, "https://host/em.h5@raw"),
        ("hdf5://https://host/em.bin@raw", OURS, "hdf5://https://host/em.bin@raw"),
        (
            "https://host/em.zarr?X-Amz-Signature=1",
            OURS,
            "zarr://https://host/em.zarr?X-Amz-Signature=1",
        ),
        ("zarr3://https://me:pw@host/em", OURS, "zarr3://https://me:pw@host/em"),
        ("precomputed://https://host/em", THEIRS, "precomputed://https://host/em"),
        ("https://host/em|precomputed:", THEIRS, "https://host/em|neuroglancer-precomputed:"),
        ("https://host/em.zarr|zarr3:a/b", THEIRS, "https://host/em.zarr|zarr3:a/b"),
        ("zarr://https://host/em.zarr@v/raw", THEIRS, "zarr://https://host/em.zarr/v/raw"),
        ("https://host/em.n5", THEIRS, "n5://https://host/em.n5"),
        ("https://host/em.nii.gz", THEIRS, "nifti://https://host/em.nii.gz"),
        ("gs://bucket/em.zip|zip:a|zarr3:", THEIRS, "gs://bucket/em.zip|zip:a|zarr3:"),
        ("dvid://https://host/3f8c/gray", THEIRS, "dvid://https://host/3f8c/gray"),
        ("boss://https://host/c/e/ch", THEIRS, "boss://https://host/c/e/ch"),
        ("bossdb://c/e/ch", THEIRS, "boss://https://api.bossdb.io/c/e/ch"),
        ("render://http://host:8080/o/p/s", THEIRS, "render://http://host:8080/o/p/s"),
        ("graphene://https://host/seg", THEIRS, "graphene://https://host/seg"),
        ("obj://https://host/cell.obj", THEIRS, "obj://https://host/cell.obj"),
    ],
)
def test_an_address_is_read_by_who_can_and_may(text, reader, as_what):
    address = parse_address(text)
    if reader == OURS:
        assert (address.client, address.volume) == (None, as_what)
    else:
        assert address.client == as_what


def test_a_folder_on_a_server_is_the_clients_once_a_look_told_its_format():
    unknown = parse_address("https://host/em")
    assert unknown.is_open
    assert with_format(unknown, "zarr3").client == "zarr3://https://host/em"
    ours = with_format(unknown, "hdf5")
    assert (ours.client, ours.volume, ours.public) == (None, "https://host/em", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python://volume/abc", "only to the program that made it"),
        ("local://annotations", "only to the program that made it"),
        ("precomputd://https://host/em", "did you mean precomputed://"),
        ("dvdi://host/x", "did you mean dvid://"),
    ],
)
def test_schemes_that_mean_nothing_here_are_refused_in_a_sentence(text, message):
    with pytest.raises(UsageError, match=message):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("https://host/em.zarr|zarr3:a/b", "em.zarr"),
        ("dvid://https://host/3f8c/gray?user=me", "gray"),
        (r"C:\data\em.h5@raw", "em.h5@raw"),
        ("precomputed://https://host/em/", "em"),
    ],
)
def test_a_layer_is_called_by_the_last_part_of_its_address(text, name):
    assert parse_address(text).name == name


WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=3, max_size=8)
SECRETS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=8, max_size=12).map("Q7{}".format)
SHAPES = [
    "precomputed://https://{u}:{s}@host/{w}",
    "https://{s}@host/{w}.zarr|zarr2:",
    "https://host/{w}|precomputed:?token={s}",
    "https://host/{w}.zarr?{w}=1&sig={s}|zarr3:{w}",
    "zarr://https://host/{w}.zarr?X-Amz-Signature={s}",
    "https://host/{w}?Expires=1&Signature={s}",
    "nifti://https://host/{w}.nii?token={s}",
    "boss://https://host/c/e/ch?window=0,9&token={s}",
    "render://http://host/o/p/s?user={s}&encoding=png",
    "dvid://https://{u}:{s}@host/3f8c/gray?user={s}",
    "graphene://middleauth+https://host/{w}#token={s}",
]


@pytest.mark.parametrize("shape", SHAPES)
@given(user=WORDS, word=WORDS, secret=SECRETS)
def test_no_password_and_no_signature_is_told_to_others(shape, user, word, secret):
    text = shape.format(u=user, w=word, s=secret)
    address = parse_address(text)
    assert secret not in (address.public or "")
    assert secret not in address.text
    assert secret not in address.name
    assert secret not in public_url(text)


def test_how_something_is_drawn_may_be_told():
    url = "boss://https://host/c/e/ch?window=0,9&token=abc"
    assert public_url(url) == "boss://https://host/c/e/ch?window=0,9"
    assert public_url("render://http://h/o/p/s?minZ=4&encoding=png") == (
        "render://http://h/o/p/s?minZ=4&encoding=png"
    )
