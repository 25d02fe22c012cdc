"""Flags of the old programs: every spelling, as absl reads it, and words for every mistake."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floodem.errors import FloodemError, OptionError, StorageError, UsageError
from floodem.legacy.flags import (
    LOGGING_FLAGS,
    Flag,
    help_lines,
    parse_flags,
    unused_flags,
)

FLAGS = (
    Flag(name="train_dir", kind="text", default="/tmp", help="Where to write."),
    Flag(name="batch_size", kind="integer", default=4),
    Flag(name="threshold", kind="number", default=0.9),
    Flag(name="shuffle_moves", kind="boolean", default=True, help="Shuffle."),
    Flag(name="sync_sgd", kind="boolean", default=False, no_effect="there is one process"),
    Flag(name="replicas", kind="integer", default=0, no_effect="there is one process"),
    Flag(name="margin", kind="list"),
    Flag(name="fov_policy", kind="text", default="fixed", choices=("fixed", "max_pred_moves")),
)
NEEDED = Flag(name="model_name", kind="text", is_required=True)
AND_MORE = Flag(name="model_args", kind="text", is_required=True)


def parsed(*words, flags=FLAGS):
    return parse_flags(flags, words, program="train")


@pytest.mark.parametrize(
    "words",
    [
        ("--batch_size", "7"),
        ("--batch_size=7",),
        ("-batch_size", "7"),
        ("-batch_size=7",),
        ("--batch_size=0x7",),
        ("--batch-size=7",),
        ("--batch_size=3", "--batch_size=7"),
    ],
)
def test_a_value_may_be_written_in_every_old_way(words):
    found = parsed(*words)
    assert found["batch_size"] == 7
    assert found.given == {"batch_size"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), True),
        (("--shuffle_moves",), True),
        (("--noshuffle_moves",), False),
        (("-noshuffle_moves",), False),
        (("--noshuffle_moves", "--shuffle_moves"), True),
        (("--shuffle_moves=false",), False),
        (("--shuffle_moves=0",), False),
        (("--shuffle_moves=F",), False),
        (("--shuffle_moves", "False"), False),
        (("--noshuffle_moves", "--shuffle_moves=1"), True),
    ],
)
def test_true_and_false_are_said_in_every_old_way(words, expected):
    assert parsed(*words)["shuffle_moves"] is expected


def test_a_word_behind_a_boolean_is_not_its_value_unless_it_says_so():
    found = parsed("--shuffle_moves", "1", "--batch_size=2")
    assert found["shuffle_moves"] is True
    assert found.positional == ("1",)
    assert found["batch_size"] == 2


def test_a_list_is_split_at_commas_and_quotes_keep_one():
    assert parsed("--margin=24, 24,12")["margin"] == ("24", "24", "12")
    assert parsed('--margin="a,b",c')["margin"] == ("a,b", "c")
    assert parsed("--margin=")["margin"] == ()
    assert parsed()["margin"] is None


def test_windows_paths_and_json_survive():
    arguments = '{"depth":9,"fov_size":[33,33,17]}'
    found = parsed(
        r"--train_dir=C:\data\run 1", f"--model_args={arguments}", flags=(*FLAGS, AND_MORE)
    )
    assert found["train_dir"] == r"C:\data\run 1"
    assert found["model_args"] == arguments
    assert parsed("--train_dir", "a=b")["train_dir"] == "a=b"
    assert parsed("--train_dir", "-5")["train_dir"] == "-5"


def test_two_dashes_end_the_flags():
    found = parsed("--batch_size=2", "out.h5", "--", "--batch_size=3", "--nonsense")
    assert found["batch_size"] == 2
    assert found.positional == ("out.h5", "--batch_size=3", "--nonsense")


@pytest.mark.parametrize("word", ["--help", "--helpfull", "--helpshort", "-help"])
def test_help_is_asked_for_in_three_words_whatever_is_missing(word):
    assert parse_flags((NEEDED,), [word], program="train").asks_help
    assert not parsed().asks_help


def test_help_names_every_flag_with_its_default_and_what_it_does():
    text = "\n".join(help_lines((*FLAGS, NEEDED)))
    for flag in (*FLAGS, NEEDED):
        assert re.search(rf"--(\[no\])?{flag.name}\b", text)
    assert "--train_dir: Where to write." in text
    assert "(default: 0.9; a number)" in text
    assert "(default: true; true or false)" in text
    assert "one of fixed, max_pred_moves" in text
    assert "(required; text)" in text
    assert text.count("no effect here: there is one process") == 2


def test_what_has_no_effect_is_said_once_for_each_reason():
    found = parsed("--sync_sgd", "--replicas=3", "--sync_sgd", "--logtostderr", "--batch_size=1")
    first, second = unused_flags(FLAGS, found)
    assert "--logtostderr has no effect" in first
    assert second == "--sync_sgd, --replicas have no effect here: there is one process"
    assert unused_flags(FLAGS, parsed("--batch_size=1")) == ()


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("--bach_size=3",), UsageError, r"no flag '--bach_size=3': did you mean --batch_size\?"),
        (("--noshufle_moves",), UsageError, "did you mean --noshuffle_moves"),
        (("--xyzzy",), UsageError, "no flag '--xyzzy': --help lists all flags"),
        (("--batch_size",), UsageError, "--batch_size of train has no value"),
        (("--train_dir", "--batch_size=3"), UsageError, "--train_dir of train has no value"),
        (("--batch_size=2.5",), OptionError, "'2.5' is no whole number"),
        (("--batch_size=" + "9" * 5000,), OptionError, "is no whole number"),
        (("--threshold=nan",), OptionError, "'nan' is no number"),
        (("--threshold=high",), OptionError, "'high' is no number"),
        (("--shuffle_moves=maybe",), OptionError, "neither true nor false"),
        (("--noshuffle_moves=true",), OptionError, "true or false by itself"),
        (("--fov_policy=fixd",), OptionError, "choose one of fixed, max_pred_moves"),
        (('--margin="a',), OptionError, "is no list by commas"),
    ],
)
def test_mistakes_are_named_with_what_to_do(words, error, says):
    with pytest.raises(error, match=says):
        parsed(*words)


def test_all_missing_flags_are_named_together():
    with pytest.raises(UsageError, match="train needs --model_name and --model_args: add them"):
        parse_flags((NEEDED, AND_MORE, *FLAGS), [], program="train")
    with pytest.raises(UsageError, match="train needs --model_args: add it"):
        parse_flags((NEEDED, AND_MORE), ["--model_name=x"], program="train")


def test_unknown_flags_pass_where_undefok_names_them():
    assert parsed("--xyzzy=1", "--undefok=xyzzy,foo", "--nofoo")["batch_size"] == 4


def test_a_flag_file_stands_for_its_lines_and_may_name_others(tmp_path):
    (tmp_path / "inner.txt").write_text("-threshold=0.5\n--noshuffle_moves\n", encoding="utf-8")
    outer = tmp_path / "outer.txt"
    outer.write_text(
        f"# a comment\n// another\n\n  --batch_size=8  \n--train_dir a folder\n"
        f"--flagfile={tmp_path / 'inner.txt'}\nword\n",
        encoding="utf-8-sig",
        newline="\r\n",
    )
    for words in ((f"--flagfile={outer}",), ("--flagfile", str(outer))):
        found = parsed("--batch_size=1", *words, "--threshold=0.7")
        assert found["batch_size"] == 8
        assert found["train_dir"] == "a folder"
        assert found["threshold"] == 0.7
        assert found["shuffle_moves"] is False
        assert found.positional == ("word",)
    assert parsed("--flagfile=")["batch_size"] == 4


def test_a_flag_file_that_names_itself_is_refused(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text(f"--flagfile={second}\n", encoding="utf-8")
    second.write_text(f"--flagfile={first}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="names itself again"):
        parsed(f"--flagfile={first}")


def test_flag_files_within_each_other_are_bounded(tmp_path):
    for number in range(40):
        (tmp_path / str(number)).write_text(
            f"--flagfile={tmp_path / str(number + 1)}\n", encoding="utf-8"
        )
    with pytest.raises(UsageError, match="one too many"):
        parsed(f"--flagfile={tmp_path / '0'}")
    # Two of each in each: without a bound, 2**16 of them.
    for number in range(16):
        (tmp_path / str(number)).write_text(
            f"--flagfile={tmp_path / str(number + 1)}\n" * 2, encoding="utf-8"
        )
    (tmp_path / "16").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="one too many"):
        parsed(f"--flagfile={tmp_path / '1'}")


def test_flag_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(StorageError, match="cannot read flag file"):
        parsed(f"--flagfile={tmp_path / 'missing'}")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no text"):
        parsed(f"--flagfile={tmp_path / 'binary'}")
    (tmp_path / "large").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(UsageError, match="is larger than"):
        parsed(f"--flagfile={tmp_path / 'large'}")
    with pytest.raises(UsageError, match="impossible name"):
        parsed("--flagfile=a\0b")
    with pytest.raises(StorageError):
        parsed("--flagfile=~no such user/flags")


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
ENTRIES = st.lists(st.text("abc019.:@\\/", min_size=1, max_size=8), min_size=1, max_size=4)
VALUES = {
    "train_dir": TEXTS,
    "batch_size": st.integers(-(10**9), 10**9).map(str),
    "threshold": st.floats(-1e6, 1e6).map(repr),
    "margin": ENTRIES.map(",".join),
}


@st.composite
def command_lines(draw):
    """Words of a correct command line."""
    words = []
    for _ in range(draw(st.integers(0, 6))):
        dashes = draw(st.sampled_from(["-", "--"]))
        name = draw(st.sampled_from([*VALUES, "shuffle_moves", "sync_sgd", ""]))
        if not name:
            words.append(draw(st.sampled_from(["word", "a=b", "-", "1"])))
        elif name in VALUES:
            value = draw(VALUES[name])
            joined = draw(st.booleans()) or value.startswith("-")
            words += [f"{dashes}{name}={value}"] if joined else [f"{dashes}{name}", value]
        else:
            spelling = draw(st.sampled_from(["{}", "no{}", "{}=true", "{}=0", "{}=F"]))
            words.append(dashes + spelling.format(name))
    return words


@settings(max_examples=200, deadline=None)
@given(command_lines())
def test_what_absl_understands_is_understood_alike(words):
    absl = pytest.importorskip("absl.flags")
    theirs = absl.FlagValues()
    absl.DEFINE_string("train_dir", "/tmp", "", flag_values=theirs)
    absl.DEFINE_integer("batch_size", 4, "", flag_values=theirs)
    absl.DEFINE_float("threshold", 0.9, "", flag_values=theirs)
    absl.DEFINE_boolean("shuffle_moves", True, "", flag_values=theirs)
    absl.DEFINE_boolean("sync_sgd", False, "", flag_values=theirs)
    absl.DEFINE_list("margin", None, "", flag_values=theirs)
    rest = theirs(["program", *words])
    ours = parsed(*words)
    assert list(ours.positional) == rest[1:]
    for name in ("train_dir", "batch_size", "threshold", "shuffle_moves", "sync_sgd"):
        assert ours[name] == theirs[name].value
    entries = None if ours["margin"] is None else list(ours["margin"])
    assert entries == theirs["margin"].value


ODD_WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["--", "-", "--=", "--no", "--margin=\n,", "--undefok", "--flagfile", "--v"]),
    st.builds(
        "--{}={}".format,
        st.sampled_from([*(flag.name for flag in FLAGS), "flagfile", "undefok"]),
        st.text(max_size=20),
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ODD_WORDS, max_size=6))
def test_any_words_are_understood_or_refused_in_words(words):
    refusal, found = "", None
    try:
        found = parsed(*words)
    except FloodemError as error:
        refusal = str(error)
    if found is None:
        assert refusal
    else:
        assert set(found) == {flag.name for flag in (*FLAGS, *LOGGING_FLAGS)}
        assert found.given <= set(found)
