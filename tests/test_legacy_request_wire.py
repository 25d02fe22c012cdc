"""Requests in binary: the bytes are protobuf's, and nothing in a damaged one is believed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.errors import UsageError, VolumeFormatError
from floodem.legacy.requests import decode, encode, format_text, make_message, parse_text
from floodem.legacy.requests.schema import SCHEMAS, Kind
from request_cases import REQUESTS, messages

protobuf = pytest.importorskip("google.protobuf", reason="protobuf comes with tensorboard")
from google.protobuf import text_format  # noqa: E402
from google.protobuf.message import DecodeError  # noqa: E402

from reference.request_protos import ENUMS, GROUPS, MESSAGES, message_class  # noqa: E402


def parsed(name):
    message, text = REQUESTS[name]
    return parse_text(text, message=message, source="request.pbtxt")


def test_the_tables_are_those_of_the_published_messages():
    ours = {
        name: {
            f"{field.name} {field.number} {field.message or field.kind}"
            f"{'*' if field.is_repeated else ''}"
            for field in schema.by_name.values()
        }
        for name, schema in SCHEMAS.items()
    }
    theirs = {
        name: {" ".join(words.split()) for words in fields.split(",")}
        for name, fields in MESSAGES.items()
    }
    for enumeration in ENUMS:
        theirs = {
            name: {field.replace(f" {enumeration}", " enum") for field in fields}
            for name, fields in theirs.items()
        }
    assert ours == theirs
    groups = {
        name: (fields[0].group, tuple(field.name for field in fields))
        for name, schema in SCHEMAS.items()
        if (fields := [field for field in schema.by_name.values() if field.group])
    }
    assert groups == GROUPS


@pytest.mark.parametrize("name", REQUESTS)
def test_bytes_and_text_are_understood_as_protobuf_does(name):
    message, text = REQUESTS[name]
    theirs = text_format.Parse(text, message_class(message)())
    data = encode(parsed(name))
    assert data == theirs.SerializeToString(deterministic=True)
    assert decode(data, message=message) == parsed(name)


@settings(max_examples=200, deadline=None)
@given(message=messages())
def test_every_message_has_the_bytes_of_protobuf(message):
    data = encode(message)
    theirs = message_class(message.name)()
    theirs.ParseFromString(data)
    assert theirs.SerializeToString(deterministic=True) == data
    assert text_format.Parse(format_text(message), message_class(message.name)()) == theirs


@settings(max_examples=150, deadline=None)
@given(message=messages())
def test_text_to_message_to_bytes_and_back_changes_nothing(message):
    text = format_text(message)
    first = parse_text(text, message=message.name, source="a text")
    second = decode(encode(first), message=message.name)
    assert first == second == message
    assert format_text(second) == text


@settings(max_examples=150, deadline=None)
@given(message=messages(), text=st.data())
def test_protobufs_own_text_is_understood(message, text):
    theirs = message_class(message.name)()
    theirs.ParseFromString(encode(message))
    written = text_format.MessageToString(
        theirs,
        use_short_repeated_primitives=text.draw(st.booleans()),
        as_one_line=text.draw(st.booleans()),
        as_utf8=text.draw(st.booleans()),
        pointy_brackets=text.draw(st.booleans()),
    )
    assert parse_text(written, message=message.name, source="a text") == message


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=80), name=st.sampled_from(sorted(REQUESTS)))
def test_any_bytes_are_understood_as_protobuf_does_or_refused(data, name):
    message, _ = REQUESTS[name]
    try:
        ours = decode(data, message=message)
    except VolumeFormatError as refused:
        assert message in str(refused)  # noqa: PT017
        return
    try:
        theirs = message_class(message).FromString(data)
    except DecodeError:
        pytest.fail(f"protobuf refuses {data!r}")
    assert encode(ours) == theirs.SerializeToString(deterministic=True) or ours.unknown


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(REQUESTS)),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), min_size=1, max_size=3),
    cut=st.floats(0, 1),
)
def test_damaged_bytes_are_understood_or_refused(name, edits, cut):
    message, _ = REQUESTS[name]
    data = encode(parsed(name))
    for place, piece in edits:
        at = int(place * len(data))
        data = data[:at] + piece + data[at + len(piece) :]
    data = data[: int(cut * len(data)) + 1]
    try:
        request = decode(data, message=message)
    except VolumeFormatError:
        return
    assert decode(encode(request), message=message).values == request.values


def test_fields_of_another_version_are_kept_and_written_again():
    known = encode(parsed("fib25"))
    newer = known + b"\xfa\x01\x03new" + b"\xc5\x02\x00\x00\x80\x3f"
    request = decode(newer, message="InferenceRequest")
    assert request.values == parsed("fib25").values
    assert len(request.unknown) == 2
    assert encode(request) == newer
    assert "a field that InferenceRequest does not have: fa01036e6577" in format_text(request)


def test_parts_of_a_message_that_come_apart_are_merged():
    first = make_message(
        "InferenceRequest", {"image": make_message("DecoratedVolume", {"hdf5": "a"})}
    )
    options = {"pad_value": 0.05}
    parts = [
        make_message(
            "InferenceRequest", {"inference_options": make_message("InferenceOptions", one)}
        )
        for one in (options, {"move_threshold": 0.9}, {"pad_value": 0.1})
    ]
    merged = decode(b"".join(map(encode, [first, *parts])), message="InferenceRequest")
    assert merged.get("inference_options").values == {"pad_value": 0.1, "move_threshold": 0.9}


def test_of_fields_that_exclude_each_other_the_last_counts():
    data = b"".join(
        encode(make_message("DecoratedVolume", {name: "x"})) for name in ("hdf5", "volinfo")
    )
    assert decode(data, message="DecoratedVolume").values == {"volinfo": "x"}


def test_numbers_packed_by_newer_writers_are_understood():
    assert decode(b"\x2a\x03\x01\xff\x01", message="MaskChannelConfig").get("values") == (1, 255)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x12", "does not end"),
        (b"\x15\x00\x00", "cut short"),
        (b"\x22\xff\xff\xff\xff\x0f", "cut short"),
        (b"\x00\x00", "field number 0"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x22\x01\xff", "utf-8"),
        (b"\xff" * 12, "does not end"),
    ],
)
def test_what_is_wrong_in_bytes_is_said(data, said):
    with pytest.raises(VolumeFormatError, match=said):
        decode(data, message="InferenceRequest")


def test_deep_bytes_are_refused():
    data = b""
    for _ in range(3000):
        data = b"\x0a" + _varint(len(data)) + data
    # field 1 of InferenceRequest is none, so that nothing is looked into
    assert decode(data, message="InferenceRequest").unknown
    assert decode(data, message="ResegmentationRequest").get("inference").unknown


def _varint(value):
    written = b""
    while value > 0x7F:
        written += bytes([value & 0x7F | 0x80])
        value >>= 7
    return written + bytes([value])


def test_the_published_result_carries_a_request_that_is_understood(shared_data):
    with np.load(shared_data / "fib25" / "sample-training2.npz", allow_pickle=False) as result:
        data = bytes(result["request"].item())
    request = decode(data, message="InferenceRequest")
    assert request.get("model_name") == "singleres_3d_v000.SingleRes3DFFNModel"
    assert request.get("inference_options").get("segment_threshold") == 0.6
    assert request.get("image").get("volinfo").endswith(".volinfo")
    assert encode(request) == data


@pytest.mark.parametrize(
    ("message", "values", "said"),
    [
        ("InferenceRequest", {"imge": 1}, "no field 'imge'"),
        ("InferenceRequest", {"batch_size": True}, "whole number"),
        ("InferenceRequest", {"batch_size": 2**31}, "not between"),
        ("InferenceRequest", {"seed_policy": 1}, "text in quotes"),
        ("InferenceRequest", {"seed_policy": "\ud800"}, "text in quotes"),
        ("MaskConfig", {"invert": 1}, "true or false"),
        ("DecoratedVolume", {"hdf5": "a", "volinfo": "b"}, "exclude each other"),
        ("ConsensusRequest", {"type": 1}, "CONSENSUS_SPLIT"),
        ("ResegmentationPoint", {"id_a": -1}, "not between"),
    ],
)
def test_values_that_no_message_can_hold_are_refused(message, values, said):
    with pytest.raises(UsageError, match=said):
        make_message(message, values)


def test_floats_are_float32_and_keep_their_digits():
    options = make_message("InferenceOptions", {"pad_value": 0.05, "move_threshold": 1 / 3})
    assert options.get("pad_value") == 0.05
    assert np.float32(options.get("move_threshold")) == np.float32(1 / 3)
    assert decode(encode(options), message="InferenceOptions") == options
    assert SCHEMAS["InferenceOptions"].by_name["pad_value"].kind is Kind.FLOAT
