"""What the user wrote becomes options, or one sentence that names the key."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.cli.main import main
from floodem.cli.train import KEYS, _values
from floodem.errors import OptionError, UsageError, VolumeNotFoundError
from floodem.geometry import Box, VoxelSize
from floodem.training.configuration.making import (
    CHANGEABLE,
    differences,
    flatten,
    make_options,
    read_configuration,
    to_toml,
)
from floodem.training.configuration.options import (
    MovementOptions,
    NetworkOptions,
    OptimiserOptions,
    SamplingOptions,
    TrainOptions,
    ValidationOptions,
    VolumeOptions,
)
from floodem.training.configuration.tables import annotations_of, to_plain, value_of_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TRIPLES = st.tuples(*[st.integers(0, 99)] * 3)
BOXES = st.builds(
    lambda start, size: Box.from_shape(size, start=start),
    TRIPLES,
    st.tuples(*[st.integers(1, 9)] * 3),
)
OPTIONS = st.builds(
    TrainOptions,
    run=TEXTS,
    seed=st.integers(0, 2**63 - 1),
    max_hours=st.none() | st.floats(0, 1e300),
    compile=st.booleans(),
    network=st.builds(
        NetworkOptions,
        name=TEXTS,
        fov=TRIPLES,
        arguments=st.dictionaries(
            TEXTS, st.integers(-(2**63), 2**63 - 1) | FLOATS | TEXTS | st.booleans()
        ),
        init=st.none() | TEXTS,
    ),
    volumes=st.lists(
        st.builds(
            VolumeOptions,
            name=TEXTS,
            image=TEXTS,
            box=st.none() | BOXES,
            voxel_size=st.none() | st.builds(VoxelSize, *[st.floats(1e-3, 1e9)] * 3),
        ),
        max_size=3,
        unique_by=lambda volume: volume.name,
    ).map(tuple),
    sampling=st.builds(
        SamplingOptions, thresholds=st.lists(FLOATS).map(tuple), margin=st.none() | TRIPLES
    ),
    movement=st.builds(MovementOptions, moves=st.integers(0, 9), pad=st.floats(0.01, 0.99)),
    optimiser=st.builds(
        OptimiserOptions, learning_rate=st.floats(1e-300, 1e300), decay_steps=st.none() | st.just(5)
    ),
    validation=st.builds(ValidationOptions, box=st.none() | BOXES, image=st.none() | TEXTS),
)


@given(OPTIONS)
@settings(max_examples=60, deadline=None)
def test_a_complete_configuration_reads_back_as_it_was_written(options):
    text = to_toml(options)
    values = tomllib.loads(text)
    assert values.pop("version") == 1
    plain = {**values, "network": {**values["network"], "init": None}}  # no model is looked for
    expected = dataclasses.replace(options, network=dataclasses.replace(options.network, init=None))
    assert make_options(plain) == expected
    assert not differences(options, options)


def test_a_complete_configuration_explains_every_key():
    lines = to_toml(TrainOptions(volumes=(VolumeOptions(),))).splitlines()
    for key in KEYS:
        name = key.path.rpartition(".")[2]
        found = [
            n for n, line in enumerate(lines) if line.startswith((f"{name} =", f"# {name} is "))
        ]
        assert found, key.path
        assert all(lines[number - 1].startswith("#") for number in found), key.path


def test_plain_values_of_options_are_plain():
    box = Box((0, 1, 2), (3, 4, 5))
    options = TrainOptions(volumes=(VolumeOptions(box=box),))
    plain = options.to_dict()
    assert plain["volume"][0]["box"] == "0:3,1:4,2:5"
    assert plain["network"]["fov"] == [17, 33, 33]
    assert plain["version"] == 1


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"optimiser": {"learning_rat": 1}}, "learning_rat: did you mean optimiser.learning_rate"),
        ({"max_step": 5}, "did you mean max_steps"),
        ({"volume": [{"imag": "a"}]}, "no key is called volume.imag: did you mean volume.image"),
        ({"qqqq": 5}, "known are run, "),
        ({"max_steps": "5"}, "max_steps is '5', and should be a whole number"),
        ({"max_steps": True}, "max_steps is True, and should be a whole number"),
        ({"max_steps": 2.0}, "max_steps is 2.0, and should be a whole number"),
        ({"compile": 1}, "compile is 1, and should be true or false"),
        ({"network": {"fov": [1, 2]}}, r"fov \[1, 2\] has 2 entries: give 3, ordered z, y, x"),
        ({"network": {"fov": "1,2,3"}}, "network.fov is '1,2,3', not a list"),
        ({"network": {"fov": [1, 2, 3.5]}}, "network.fov is 3.5"),
        ({"network": {"arguments": {"depth": [1]}}}, "network.arguments.depth"),
        ({"network": 5}, "network is 5, not a table"),
        ({"volume": {"name": "a"}}, "not a repeated table"),
        ({"volume": [{"box": "0:1"}]}, "volume.box: '0:1' is not a box"),
        ({"volume": [{"box": [0, 1]}]}, "volume.box is .* not a box"),
        ({"volume": [{"voxel_size": [30, 6]}]}, "volume.voxel_size .* has 2 entries: give 3"),
        ({"volume": [{"voxel_size": [30, 6, 0]}]}, "volume.voxel_size: voxel size 30,6,0 nm is n"),
        ({"volume": [{"voxel_size": "30,6,6"}]}, "volume.voxel_size is '30,6,6', not a list"),
        ({"optimiser": {"name": "sgdd"}}, "optimiser.name 'sgdd' is not one of sgd"),
        ({"movement": {"threshold": 2.0}}, "movement.threshold 2.0 is not a probability"),
        ({"volume": [{}, {}]}, "need different names"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused_by_name(values, sentence):
    with pytest.raises(OptionError, match=sentence):
        make_options(values)


def test_whole_numbers_count_as_numbers():
    assert make_options({"max_hours": 2}).max_hours == 2.0


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("version = 2", OptionError, "version 2; this floodem reads 1"),
        ("a = ", OptionError, "is not TOML"),
        (b"\xff", OptionError, "UTF-8"),
        (None, VolumeNotFoundError, "no configuration"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, error, sentence):
    path = tmp_path / "config.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error, match=sentence):
        read_configuration(path)


def test_only_what_decides_the_result_counts_as_different():
    options = TrainOptions()
    for name, value in flatten(to_plain(options)).items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        table, _, key = name.rpartition(".")
        if "arguments" in table:
            continue
        whole = getattr(options, table) if table else options
        try:
            changed = dataclasses.replace(whole, **{key: value / 2 if value else 1})
        except OptionError:
            continue
        if table:
            changed = dataclasses.replace(options, **{table: changed})
        found = [entry[0] for entry in differences(options, changed)]
        assert found == ([] if name in CHANGEABLE else [name])


def test_arguments_of_another_network_do_not_mix_with_the_defaults():
    assert make_options({"network": {"name": "mine:Net"}}).network.arguments == {}
    given = make_options({"network": {"name": "mine:Net", "arguments": {"a": 1}}})
    assert given.network.arguments == {"a": 1}


def test_every_key_is_a_flag_of_the_command_with_its_help(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    names = set(flatten(to_plain(TrainOptions(volumes=(VolumeOptions(),))))) - {"network.arguments"}
    paths = {
        name.replace("volume[0]", "volume").replace("network.arguments.depth", "x")
        for name in names
    }
    known = {key.path for key in KEYS}
    for path in sorted(paths):
        assert path in known or path.startswith(("x", "network.arguments."))
    for key in KEYS:
        assert f"{key.flag} " in shown or f"{key.flag}," in shown, key.flag
        assert " ".join(key.text.split()[:3]) in shown, key.flag


def given_flags(**flags):
    return _values(None, flags, overwrite=False)


def test_a_volume_is_image_and_labels_and_may_be_repeated(tmp_path):
    flags = {
        "run": str(tmp_path),
        "volume__image": ["a", "b"],
        "volume__labels": ["c", "d"],
        "volume__weight": ["2"],
        "network__fov": "5,7,9",
        "network__arguments": "depth=3,name=x",
        "compile": True,
        "max_hours": "none",
    }
    options = make_options(given_flags(**flags))
    assert [(v.name, v.image, v.labels, v.weight) for v in options.volumes] == [
        ("volume-1", "a", "c", 2.0),
        ("volume-2", "b", "d", 2.0),
    ]
    assert options.network.fov == (5, 7, 9)
    assert options.network.arguments == {"depth": 3, "name": "x"}
    assert options.compile
    assert options.max_hours is None


def test_flags_go_before_the_file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('max_steps = 5\nseed = 3\n[[volume]]\nimage = "a"\nlabels = "b"\n')
    values = _values(str(path), {"max_steps": "7", "volume__box": ["0:1,0:1,0:1"]}, overwrite=False)
    options = make_options(values)
    assert (options.max_steps, options.seed) == (7, 3)
    assert options.volumes[0].box == Box((0, 0, 0), (1, 1, 1))
    assert options.volumes[0].image == "a"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({}, "nothing to learn from"),
        (
            {"volume__image": ["a", "b"], "volume__labels": ["c"]},
            "--volume.labels is given 1 time for 2 volumes:",
        ),
        (
            {"volume__image": ["a"], "volume__labels": ["c"], "volume__weight": ["1", "2"]},
            "--volume.weight is given 2 times for 1 volume:",
        ),
        ({"max_steps": "many"}, "--max-steps is 'many', and should be a whole number"),
        ({"network__fov": "1,2"}, "--network.fov .* has 2 entries"),
        ({"network__arguments": "depth"}, "write name=value"),
        ({"volume__voxel_size": ["30,6"]}, "--volume.voxel-size .* has 2 entries"),
        ({"volume__voxel_size": ["30"]}, "--volume.voxel-size .* has 1 entry: give 3"),
        ({"volume__voxel_size": ["a,6,6"]}, "--volume.voxel-size is 'a', and should be a number"),
        ({"volume__box": ["0:1"]}, "--volume.box: '0:1' is not a box"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_are_refused_by_name(tmp_path, flags, sentence):
    with pytest.raises(UsageError, match=sentence):
        given_flags(run=str(tmp_path / "none"), **flags)


def test_a_voxel_size_on_the_command_line_is_z_y_x_in_nanometres():
    values = given_flags(
        volume__image=["a", "b"], volume__labels=["c", "d"], volume__voxel_size=["30,6.5,6"]
    )
    options = make_options(values)
    assert [volume.voxel_size for volume in options.volumes] == [VoxelSize(30.0, 6.5, 6.0)] * 2


@given(TRIPLES)
def test_triples_on_the_command_line_are_z_y_x(triple):
    kind = annotations_of(NetworkOptions)["fov"]
    assert value_of_text(kind, ",".join(map(str, triple)), where="--fov") == list(triple)


def test_a_folder_without_a_run_cannot_be_gone_on_with_and_is_named(tmp_path):
    folder = tmp_path / "nowhere"
    with pytest.raises(UsageError, match="nowhere holds no run, and there is nothing to learn"):
        given_flags(run=str(folder))
    with pytest.raises(UsageError, match="^there is nothing to learn"):
        given_flags()
