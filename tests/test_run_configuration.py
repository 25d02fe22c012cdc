"""A project file says what is wanted; all that is wrong in it is told at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodem.errors import OptionError, VolumeNotFoundError
from floodem.geometry import Box, VoxelSize
from floodem.project.pipeline import read_project
from floodem.project.pipeline.addresses import resolved
from floodem.project.pipeline.graph import STAGE_NAMES, stages_of
from floodem.project.pipeline.lines import lines_of_keys
from project_cases import write_project

TRAINED = """\
version = 1
[image]
source = "em.zarr"
[labels]
source = "truth.zarr"
"""


def read(folder, text):
    path = folder / "p.toml"
    path.write_text(text, encoding="utf-8")
    return read_project(path)


def refused(folder, text):
    with pytest.raises(OptionError) as refusal:
        read(folder, text)
    return str(refusal.value)


def test_all_mistakes_are_told_at_once_with_line_and_nearest_name(tmp_path):
    sentence = refused(
        tmp_path,
        """\
version = 1
[image]
source = "em.zarr"
box = "0:10,0:10"
[modle]
name = "synthetic"
[segment]
min_segmnt_size = 3
segment_threshold = "high"
block = [
    64, 64,
]
[train]
bach_size = 4
[train.optimiser]
name = "sdg"
[agglomerate]
raduis = [1, 2, 3]
[agglomerate.rule]
iou = 3.0
[evaluate]
worst = -1
""",
    )
    assert "has 10 mistakes" in sentence
    assert len(sentence.splitlines()) == 11
    for part in (
        "line 4: image.box",
        "line 5: no key is called modle: did you mean model?",
        "line 8: no key is called segment.min_segmnt_size: did you mean segment.min_segment_size?",
        "line 9: segment.segment_threshold is 'high', and should be a number",
        "line 10: segment.block [64, 64] has 2 entries: give 3, ordered z, y, x",
        "line 14: [train] no key is called bach_size: did you mean batch_size?",
        "line 16: [train] [optimiser]: optimiser.name 'sdg' is not one of",
        "line 18: no key is called agglomerate.raduis: did you mean agglomerate.radius?",
        "line 20: [agglomerate.rule]: the rule's iou 3.0 is no fraction",
        "line 22: [evaluate]: worst -1",
    ):
        assert part in sentence


def test_what_is_not_there_is_told_together_with_what_is_wrong(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(
        """\
version = 1
[image]
source = "zarr://none.zarr@em"
[labels]
source = "https://server.invalid/truth.zarr"
[model]
name = "fib52"
[segment]
consensus = "backwards"
init_activation = 7.0
pad = 2.0
[agglomerate.rule]
iou = 3.0
deleted = -1.0
[evaluate]
skeletons = "swc/"
"""
    )
    with pytest.raises(OptionError) as refusal:
        read_project(path, look=True)
    told = [line.strip() for line in str(refusal.value).splitlines()]
    assert told[0].endswith("p.toml has 8 mistakes:")
    for line, said in zip(
        told[1:],
        (
            "line 3: image.source is 'zarr://none.zarr@em', and there is no",
            "line 7: no model file fib52",
            "line 9: segment.consensus is 'backwards': write \"reverse-seeds\"",
            "line 10: init_activation 7.0",
            "line 11: pad_value 2.0",
            "line 13: [agglomerate.rule]: the rule's iou 3.0",
            "line 14: [agglomerate.rule]: the rule's deleted -1.0",
            "line 16: evaluate.skeletons is 'swc/', and there is no",
        ),
        strict=True,
    ):
        assert line.startswith(said)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("version = 2\n", "has version 2; this floodem reads version = 1"),
        ('[image]\nsource = "a"\n', "has version None"),
        ("version = 1\n", r"\[image\] has no source"),
        ("version = 1\nimage = 3\n", "image is 3, not a table"),
        ('version = 1\n[image]\nsource = "a"\n[segment]\n', r"\[segment\] has no network"),
        ('version = 1\n[image]\nsource = "a"\n[mesh]\n', r"\[mesh\] has nothing to work on"),
        ('version = 1\n[image]\nsource = "a"\n[train]\n', r"\[train\] has nothing to learn from"),
        (f"{TRAINED}[train]\nrun = 'x'\n", "train.run cannot be chosen"),
        (f"{TRAINED}[train]\nuse = 'oldest'\n", "train.use is 'oldest': write best or newest"),
        (f"{TRAINED}[train]\n[model]\nname = 'a'\n", r"\[model\] and \[train\] are both there"),
        (f"{TRAINED}[model]\n[segment]\n", r"\[model\] names no network, or two"),
        (f"{TRAINED}[model]\nname='a'\n[segment]\nseeds='PolicyPeeks'\n", "PolicyPeaks"),
        (f"{TRAINED}[model]\nname='a'\n[segment]\nmask=['where: q < 1']\n", "line 9"),
        (f"{TRAINED}[model]\nname='a'\n[segment]\npad=2.0\n", "pad_value 2.0 is not a probability"),
        (
            f"{TRAINED}[model]\nname='a'\n[segment]\n[cluster]\ncluster='local:2'\n",
            "say which, with block =",
        ),
        (f"{TRAINED}[cluster]\nworkers=2\ncluster='local:2'\n", "exclude each other"),
        (f"{TRAINED}[project]\nfolder='.'\n", "is no folder of its own"),
        ('version = 1\n[image]\nsource = "em.zarr\n', r"is not TOML .*line 3"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path, text, sentence):
    with pytest.raises(OptionError, match=sentence):
        read(tmp_path, text)


def test_a_missing_file_says_how_to_write_one(tmp_path):
    with pytest.raises(VolumeNotFoundError, match=r"floodem run --init none.toml --image IMAGE"):
        read_project(tmp_path / "none.toml")


def test_defaults_are_the_name_of_the_file(tmp_path):
    project = read_project(write_project(tmp_path))
    assert project.name == "p"
    assert project.folder == tmp_path / "p"
    assert project.image.box == Box.parse("100:126,200:230,300:336")


def test_relative_paths_begin_at_the_project_file(tmp_path, monkeypatch):
    path = write_project(tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    project = read_project(path.relative_to(tmp_path.parent))
    assert project.resolved("em.zarr") == str(tmp_path / "em.zarr")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("em.h5@raw", "/base/em.h5@raw"),
        ("../em.zarr", "/em.zarr"),
        ("/data/em.zarr", "/data/em.zarr"),
        ("zarr://em.zarr", "zarr:///base/em.zarr"),
        ("s3://bucket/em.zarr", "s3://bucket/em.zarr"),
        ("zarr://https://host/em.zarr", "zarr://https://host/em.zarr"),
    ],
)
def test_addresses_keep_their_format_and_dataset(tmp_path, text, expected):
    assert resolved(text, base=Path("/base")) == expected


def test_training_takes_image_and_labels_unless_it_names_volumes(tmp_path):
    project = read(tmp_path, f"{TRAINED}[train]\nmax_steps = 5\n")
    stage = next(one for one in stages_of(project) if one.name == "train")
    assert set(stage.files) == {"em.zarr", "truth.zarr"}
    assert stage.options["train.max_steps"] == 5
    assert "train.device" not in stage.options
    named = f'{TRAINED}[train]\n[[train.volume]]\nimage = "a.h5@x"\nlabels = "b.h5@y"\n'
    stage = next(one for one in stages_of(read(tmp_path, named)) if one.name == "train")
    assert set(stage.files) == {"a.h5@x", "b.h5@y"}


def test_a_training_file_is_read_below_the_keys_of_the_table(tmp_path):
    (tmp_path / "train.toml").write_text("version = 1\nmax_steps = 7\nbatch_size = 3\n")
    project = read(tmp_path, f"{TRAINED}[train]\nfile = 'train.toml'\nmax_steps = 9\n")
    assert project.train is not None
    assert (project.train.options.max_steps, project.train.options.batch_size) == (9, 3)


def test_labels_are_cut_as_the_image_where_they_say_nothing_else(tmp_path):
    project = read_project(write_project(tmp_path))
    stage = next(one for one in stages_of(project) if one.name == "truth")
    assert stage.options["labels.box"] == "100:126,200:230,300:336"


def test_stages_come_in_the_order_in_which_they_need_each_other(tmp_path):
    stages = stages_of(read_project(write_project(tmp_path)))
    assert tuple(one.name for one in stages) == STAGE_NAMES
    for stage in stages:
        for earlier in stage.needs:
            assert STAGE_NAMES.index(earlier) < STAGE_NAMES.index(stage.name)


def test_a_voxel_size_alone_makes_a_copy(tmp_path):
    project = read(tmp_path, 'version = 1\n[image]\nsource="a"\nvoxel_size=[30, 6, 6]\n')
    assert project.image.voxel_size == VoxelSize(30, 6, 6)
    assert project.image.is_copied


def test_lines_are_found_past_lists_texts_and_comments():
    text = 'a = 1\n[t]\n# b = 2\nb = [\n  1, # ]\n  2,\n]\nc = """\nd = 3\n"""\n'
    text += '[u.v]\ne = "[["\nf = 1\n'
    expected = {"a": 1, "t": 2, "t.b": 4, "t.c": 8, "u.v": 11, "u.v.e": 12, "u.v.f": 13}
    assert lines_of_keys(text) == expected


@given(st.text(max_size=200))
def test_looking_for_lines_takes_any_text(text):
    lines = lines_of_keys(text)
    assert all(1 <= line <= len(text.splitlines()) for line in lines.values())


@given(st.text(max_size=80))
def test_any_file_is_read_or_refused_in_a_sentence(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("any")
    path = folder / "p.toml"
    path.write_text(f"version = 1\n{text}", encoding="utf-8", errors="replace", newline="")
    with pytest.raises(OptionError, match=re.escape(str(path))):
        read_project(path)  # none of these texts names an image


EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*/project.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_project_of_an_example_can_be_read_and_has_stages(path):
    assert {"segment", "agglomerate", "evaluate"} <= {
        one.name for one in stages_of(read_project(path))
    }


def test_there_is_an_example_of_a_project():
    assert EXAMPLES
