"""Request text of the old programs: what people wrote is understood, the rest refused in words."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from floodem.errors import FloodemError, UsageError
from floodem.legacy.requests import format_text, make_message, parse_text
from floodem.legacy.requests.files import text_or_file
from floodem.legacy.requests.schema import SCHEMAS
from floodem.legacy.requests.text import DEEPEST_NESTING
from floodem.legacy.requests.tokens import LONGEST_NUMBER
from request_cases import CONSENSUS, FIB25, MASKED, REQUESTS, RESEGMENTATION, messages


def parsed(text, message="InferenceRequest"):
    return parse_text(text, message=message, source="request.pbtxt")


def test_the_shipped_request_of_fib25_is_understood():
    request = parsed(FIB25)
    assert request.get("image").get("hdf5").endswith("training_sample2/grayscale_maps.h5:raw")
    assert (request.get("image_mean"), request.get("image_stddev")) == (128, 33)
    assert (
        request.get("model_args") == '{"depth": 12, "fov_size": [33, 33, 33], "deltas": [8, 8, 8]}'
    )
    options = request.get("inference_options")
    assert options.values == {
        "init_activation": 0.95,
        "pad_value": 0.05,
        "move_threshold": 0.9,
        "min_boundary_dist": make_message("Vector3j", {"x": 1, "y": 1, "z": 1}),
        "segment_threshold": 0.6,
        "min_segment_size": 1000,
    }
    assert not options.has("disco_seed_threshold")
    assert options.get("disco_seed_threshold") == 0


def test_angle_brackets_lists_separators_and_comments_are_understood():
    request = parsed(MASKED)
    volume, expression, image = request.get("masks")
    (channel,) = volume.get("volume").get("channels")
    assert channel.get("values") == (1, 2, 3)
    assert expression.get("invert") is True
    assert image.get("image").get("channels")[0].values == {"max_value": 20.0, "invert": True}
    assert request.get("reference_histogram") == "lut.npz"
    assert request.get("image_stddev") == 62
    assert request.get("shift_mask_fov").get("start").get("x") == -8
    assert request.get("alignment_options").values == {"type": 1, "save_raw": False}
    assert request.get("seed_masks")[0].get("image").get("channels")[0].get("values") == (255,)


def test_consensus_and_resegmentation_requests_are_understood():
    consensus = parsed(CONSENSUS, "ConsensusRequest")
    assert consensus.get("type") == 2
    assert consensus.get("segmentation1").get("split_cc") is True
    points = parsed(RESEGMENTATION, "ResegmentationRequest").get("points")
    assert [point.get("id_a") for point in points] == [2**64 - 1, 1]
    assert points[1].get("point").values == {"x": -1, "y": 0, "z": 0}


def test_a_bounding_box_of_the_old_documentation_is_understood():
    box = parsed("start { x:0 y:0 z:0 } size { x:250 y:250 z:250 }", "BoundingBox")
    assert box.get("size").values == {"x": 250, "y": 250, "z": 250}


def test_what_is_not_set_has_its_default():
    empty = parsed("")
    assert empty.values == {}
    assert (empty.get("batch_size"), empty.get("image_mean")) == (1, 0.0)
    assert empty.get("masks") == ()
    assert empty.get("inference_options").get("min_boundary_dist").get("x") == 0


@pytest.mark.parametrize(
    ("written", "means"),
    [
        (r'"a\"b\'c\\d"', "a\"b'c\\d"),
        (r"'\a\b\f\n\r\t\v\?'", "\a\b\f\n\r\t\v?"),
        (r'"\101\x42\X43"', "ABC"),
        (r'"\303\251"', "é"),
        (r'"\u00e9\U0001F600"', "é😀"),
        (r'"\ud83d\ude00"', "😀"),
        ("'one' \"two\"\n# between\n'three'", "onetwothree"),
        ("'日本語'", "日本語"),
        ("''", ""),
        (r'"\0"', "\0"),
    ],
)
def test_strings_mean_what_protobuf_says(written, means):
    assert parsed(f"seed_policy: {written}").get("seed_policy") == means


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("1", 1.0),
        ("-1.5", -1.5),
        ("- 2", -2.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("2.5f", 2.5),
        ("3F", 3.0),
        ("inf", math.inf),
        ("-infinity", -math.inf),
        ("INF", math.inf),
        ("1e99", math.inf),
        ("nan", math.nan),
    ],
)
def test_numbers_are_those_of_float32(written, means):
    found = parsed(f"image_mean: {written}").get("image_mean")
    assert found == means or (math.isnan(found) and math.isnan(means))


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("0x1F", 31),
        ("017", 15),
        ("-0x10", -16),
        ("2147483647", 2**31 - 1),
        ("-2147483648", -(2**31)),
    ],
)
def test_whole_numbers_may_be_hexadecimal_and_octal(written, means):
    assert parsed(f"batch_size: {written}").get("batch_size") == means


@pytest.mark.parametrize("written", ["true", "True", "t", "1"])
def test_truth_has_four_spellings(written):
    assert parsed(f"invert: {written}", "MaskConfig").get("invert") is True


@pytest.mark.parametrize("written", ["false", "False", "f", "0"])
def test_untruth_has_four_spellings(written):
    assert parsed(f"invert: {written}", "MaskConfig").get("invert") is False


@pytest.mark.parametrize("written", ["CONSENSUS_SPLIT", "SPLIT", "2"])
def test_a_choice_is_named_or_numbered(written):
    assert parsed(f"type: {written}", "ConsensusRequest").get("type") == 2


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("imge_mean: 1", "line 1, column 1", "did you mean image_mean"),
        ("image_mean: 1\n  pad_value: 2", "line 2, column 3", "belongs into inference_options"),
        ("image_mean 1", "column 12", "expected ':'"),
        ("image_mean: {", "column 13", "expected a number"),
        ("image_mean: 'one'", "column 13", "found \"'one'\""),
        ("image_mean: 0x10", "column 13", "image_mean is a number, found '0x10'"),
        ("batch_size: 1.5", "column 13", "whole number"),
        ("batch_size: 09", "column 13", "whole number"),
        ("batch_size: 2147483648", "column 13", "2147483647"),
        ("batch_size: [1, 2]", "column 13", "takes one value, not a list"),
        ("seed_policy: PolicyPeaks", "column 14", "expected text in quotes"),
        ("seed_policy: 'Peaks", "column 14", "not closed with '"),
        ("seed_policy: 'a\nb'", "line 1, column 14", "not closed"),
        (r"seed_policy: 'C:\data'", "column 17", "a backslash goes before"),
        (r"seed_policy: '\400'", "column 15", "no byte"),
        (r"seed_policy: '\ud83d'", "column 15", "no character"),
        (r"seed_policy: '\377'", "column 14", "no text in UTF-8"),
        ("image { hdf5: 'a'", "line 1, column 7", "never closed: write }"),
        ("image { hdf5: 'a' >", "column 19", "expected a field of DecoratedVolume or '}'"),
        ("image { hdf5: 'a' volinfo: 'b' }", "column 19", "exclude each other"),
        ("image: 1", "column 8", "expected '{' behind image"),
        ("image_mean: 1 image_mean: 2", "column 15", "given twice"),
        ("[com.google.field]: 1", "column 1", "extension"),
        ("batch_size: 12abc", "column 15", "goes on with 'a'"),
        ("batch_size: 1.2.3", "column 16", "goes on with '.'"),
        ("batch_size: 1 @", "column 15", "has no meaning here"),
        ("masks [ {} {} ]", "column 12", "expected ',' or ']'"),
        ("masks [ {}, ]", "column 13", "expected '{'"),
        ("}", "column 1", "expected a field of InferenceRequest"),
        ("batch_size: 1,, batch_size: 2", "column 15", "expected a field"),
        ("alignment_options { type: SIDEWAYS }", "column 27", "NO_ALIGNMENT (1)"),
        (f"batch_size: {'1' * (LONGEST_NUMBER + 1)}", "column 13", "at most 100"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, place, said):
    with pytest.raises(UsageError) as refused:
        parsed(text)
    assert str(refused.value).startswith("request.pbtxt, line ")
    assert place in str(refused.value)
    assert said in str(refused.value)


def test_nesting_is_bounded(monkeypatch):
    deep = "inference { " * (DEEPEST_NESTING + 1)
    schema = SCHEMAS["ResegmentationRequest"]
    looped = dict(schema.by_name)
    looped["inference"] = type(looped["inference"])(
        name="inference", number=1, kind=looped["inference"].kind, message=schema.name
    )
    monkeypatch.setitem(SCHEMAS, schema.name, type(schema)(schema.name, looped, schema.by_number))
    parsed(f"{'inference { ' * DEEPEST_NESTING}{'}' * DEEPEST_NESTING}", schema.name)
    with pytest.raises(UsageError, match="more than 32 deep"):
        parsed(deep, schema.name)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_written_out_and_read_again_is_the_same(name):
    message, text = REQUESTS[name]
    request = parsed(text, message)
    assert parsed(format_text(request), message) == request


@settings(max_examples=150, deadline=None)
@given(message=messages())
def test_every_message_written_out_and_read_again_is_the_same(message):
    assert parsed(format_text(message), message.name) == message


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(st.text(max_size=200), st.text(alphabet="imagehdf5{}<>[]:;,\"'\\#- 01x.\n")))
@example(text="\ud800")
def test_any_text_is_understood_or_refused(text):
    try:
        parsed(text)
    except FloodemError as refused:
        assert str(refused).startswith("request.pbtxt, line ")  # noqa: PT017


_PIECES = st.sampled_from(
    ["{", "}", "<", ">", "[", "]", '"', "'", "\\", ":", ",", ";", "#", "-", "9"]
)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(REQUESTS)),
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), st.one_of(_PIECES, st.text(max_size=3))),
        min_size=1,
        max_size=4,
    ),
)
def test_damaged_requests_are_understood_or_refused(name, edits):
    message, text = REQUESTS[name]
    for place, length, piece in edits:
        at = int(place * len(text))
        text = text[:at] + piece + text[at + length :]
    try:
        request = parsed(text, message)
    except FloodemError as refused:
        assert str(refused).startswith("request.pbtxt, line ")  # noqa: PT017
    else:
        assert parsed(format_text(request), message) == request


@pytest.mark.parametrize(
    "text",
    [
        "masks [" + "{}," * 30_000,
        "{" * 50_000,
        "masks { " * 50_000,
        "seed_policy: " + '"\\' * 50_000,
        "seed_policy: '" + "\\n" * 100_000 + "'",
        "seed_policy: " + "'a' " * 50_000,
        "image_mean: " + "1" * 200_000,
        "image_mean: 1" + "e1" * 100_000,
        "a" * 200_000 + ": 1",
        "#" * 200_000,
        "-" * 200_000,
        "masks { volume { channels { values: [" + "1," * 50_000,
    ],
    ids=lambda text: text[:24],
)
def test_long_nonsense_takes_no_longer_than_its_length_asks(text):
    began = time.monotonic()
    try:
        parsed(text)
    except UsageError as refused:
        assert len(str(refused)) < 800  # noqa: PT017
    assert time.monotonic() - began < 5


def test_a_request_is_given_as_text_or_as_a_file(tmp_path):
    path = tmp_path / "request.pbtxt"
    path.write_text(FIB25, encoding="utf-8")
    source = "--inference_request"
    assert text_or_file(str(path), source=source) == (FIB25, str(path))
    assert text_or_file(FIB25, source=source) == (FIB25, source)
    with pytest.raises(UsageError, match="there is no file 'configs/inference.pbtxt'"):
        text_or_file("configs/inference.pbtxt", source="--inference_request")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "request.pbtxt"
    path.write_bytes(b"image_mean: 1\n\xff\xfe")
    with pytest.raises(UsageError, match=r"no text in UTF-8"):
        text_or_file(str(path), source="--inference_request")
