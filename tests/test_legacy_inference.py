"""Inference requests of the old programs: what they ask for is done, or refused by name."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.exposure import cumulative_distribution, equalize_adapthist

from bright import MEAN, STDDEV, bright_model, bright_tubes
from floodem.cli.main import main
from floodem.errors import (
    FloodemError,
    ModelError,
    OptionError,
    RunConflictError,
    StoppedError,
    UsageError,
    VolumeNotFoundError,
)
from floodem.files import exclusive
from floodem.flooding.drive import new_flooder
from floodem.flooding.job import prepare_job
from floodem.flooding.masks import MaskPlace, ShiftMask, build_mask, parse_mask
from floodem.flooding.options import FloodOptions
from floodem.flooding.request import SegmentRequest
from floodem.flooding.seeds import seed_positions
from floodem.flooding.segment import segment
from floodem.geometry import Box
from floodem.legacy.programs import Console, find_program
from floodem.legacy.requests import decode, encode, format_text, make_message, parse_text
from floodem.legacy.requests.histogram import equalise, match_histogram
from floodem.legacy.requests.inference import inference_run
from floodem.legacy.requests.masks import mask_rules, mask_texts, unwritten
from floodem.legacy.requests.others import parse_inference_request
from floodem.legacy.requests.running import run_request
from floodem.legacy.requests.schema import SCHEMAS
from floodem.legacy.requests.support import FIELDS, Support
from floodem.legacy.requests.volumes import volume_address
from floodem.legacy.results.counters import read_counters
from floodem.legacy.results.cpoint import write_cpoint
from floodem.legacy.results.paths import subvolume_path
from floodem.legacy.results.probabilities import read_probabilities
from floodem.legacy.results.resuming import checkpoint_of
from floodem.legacy.results.subvolume import read_subvolume, write_subvolume
from floodem.network.model_file import load_model, save_model
from floodem.volumes import open_volume
from request_cases import CONSENSUS, RESEGMENTATION, messages

SIZE = (24, 40, 64)
OPTIONS = """
  init_activation: 0.95 pad_value: 0.05 move_threshold: 0.9 segment_threshold: 0.6
  min_boundary_dist { x: 1 y: 1 z: 1 } min_segment_size: 100 disco_seed_threshold: 0
"""


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """The old programs' paths are relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    image, _ = bright_tubes(SIZE)
    with h5py.File("images.h5", "w") as file:
        file["raw"] = image
        file["several"] = np.stack([image, 255 - image])
    save_model(bright_model(), "training/model.ckpt-7.safetensors")
    return tmp_path


def request_text(*fields: str, options: str = OPTIONS, image: str = 'hdf5: "images.h5@raw"') -> str:
    return f"""
        image {{ {image} }}
        image_mean: {MEAN} image_stddev: {STDDEV}
        model_checkpoint_path: "training/model.ckpt-7"
        model_name: "convstack_3d.ConvStack3DFFNModel"
        model_args: "{{\\"depth\\": 1, \\"fov_size\\": [9, 9, 7], \\"deltas\\": [3, 3, 2]}}"
        segmentation_output_dir: "results" seed_policy: "PolicyPeaks"
        inference_options {{ {options} }}
        {" ".join(fields)}
    """


def asked(*fields: str, box: Box | None = None, **parts: str):
    text = request_text(*fields, **parts)
    request = parse_text(text, message="InferenceRequest", source="request.pbtxt")
    return inference_run(request, box=box)


def run(*fields: str, box: Box | None = None, **how):
    parts = {name: how.pop(name) for name in ("options", "image") if name in how}
    return run_request(asked(*fields, box=box, **parts), device="cpu", **how)


def wanted_labels(**changes):
    options = FloodOptions(min_segment_size=100, **changes.pop("options", {}))
    request = SegmentRequest(options=options, device="cpu", **changes)
    made = segment("images.h5@raw", "wanted.zarr", model=bright_model(), request=request)
    with made.open() as volume:
        return volume.read(), made


def test_a_request_gives_the_labels_of_segment_in_the_old_files():
    made = run()
    assert made.path == Path("results/0/0/seg-0_0_0.npz")
    result = read_subvolume(made.path)
    labels, wanted = wanted_labels()
    assert labels.max() > 1
    np.testing.assert_array_equal(result.segmentation, labels)
    assert result.segmentation.dtype == np.uint8
    origins = json.loads((wanted.folder / "origins.json").read_text())["origins"]
    assert {label: list(info.start_zyx) for label, info in result.origins.items()} == {
        int(label): origin["start_zyx"] for label, origin in origins.items()
    }
    assert (read_probabilities(made.path.with_suffix(".prob")) > 0).sum() == (labels > 0).sum()
    request = decode(result.request, message="InferenceRequest")
    assert request.get("segmentation_output_dir") == "results"


def test_counters_have_their_old_names_and_values():
    result = read_subvolume(run().path)
    _, wanted = wanted_labels()
    counters = wanted.summary["counters"]
    assert result.counters["inference-calls"] == counters["network_calls"] > 0
    assert result.counters["predict-calls"] == result.counters["inference-calls"]
    assert result.counters["segment_at-loop-calls"] == counters["floods"]
    assert result.counters["seed-policy-calls"] == counters["seeds"] + 1
    assert result.counters["skip_invalid_pos"] == counters["skip_invalid_position"]
    assert result.counters["voxels-segmented"] == counters["voxels_segmented"]
    assert read_counters(Path("results/counters.txt")) == result.counters


def test_a_box_has_origins_from_its_own_corner():
    box = Box((2, 4, 6), (22, 36, 60))
    made = run(box=box)
    assert made.path == Path("results/6/4/seg-6_4_2.npz")
    result = read_subvolume(made.path)
    assert result.segmentation.shape == box.shape
    labels, _ = wanted_labels(box=box)
    np.testing.assert_array_equal(result.segmentation, labels)
    for label, info in result.origins.items():
        assert result.segmentation[info.start_zyx] == label


def test_working_files_are_removed_and_results_kept_beside_others():
    run()
    run(box=Box((0, 0, 0), (24, 40, 40)), overwrite=True)
    left = sorted(str(path) for path in Path("results").rglob("*") if path.is_file())
    assert [Path(path).name for path in left] == ["seg-0_0_0.npz", "seg-0_0_0.prob", "counters.txt"]


def test_results_that_are_there_are_said_and_kept():
    first = run()
    stamp = first.path.stat().st_mtime_ns
    said = []
    again = run(notice=said.append)
    assert again.segmentation is None
    assert first.path.stat().st_mtime_ns == stamp
    assert "exists already, and nothing was done" in said[0]
    assert "--overwrite" in said[0]
    assert "--resume" in said[0]


def test_resume_takes_results_for_done_only_if_they_are_this_requests():
    run()
    said = []
    assert run(resume=True, notice=said.append).segmentation is None
    assert "nothing was left to do" in said[0]
    with pytest.raises(RunConflictError, match="another request"):
        run(options=OPTIONS.replace("0.6", "0.5"), resume=True)
    with pytest.raises(RunConflictError, match=r"holds \(24, 40, 64\) voxels"):
        run(box=Box((0, 0, 0), (24, 40, 60)), resume=True)
    assert run(options=OPTIONS.replace("0.6", "0.5"), overwrite=True).segmentation is not None


def stopping_after(steps):
    left = iter(range(steps))
    return lambda: next(left, None) is None


def test_a_stopped_run_goes_on_and_gives_the_same_as_one_that_was_not():
    whole = read_subvolume(run().path)
    Path("results/0/0/seg-0_0_0.npz").rename("whole.npz")
    for steps in (3, 11):
        with pytest.raises(StoppedError, match="run the same command again to go on"):
            run(should_stop=stopping_after(steps))
    assert not Path("results/0/0/seg-0_0_0.npz").exists()
    resumed = read_subvolume(run().path)
    np.testing.assert_array_equal(resumed.segmentation, whole.segmentation)
    assert resumed.counters == whole.counters
    assert {key: info[:2] for key, info in resumed.origins.items()} == {
        key: info[:2] for key, info in whole.origins.items()
    }


def test_a_run_that_replaces_a_result_and_was_stopped_goes_on_with_resume():
    first = read_subvolume(run().path)
    with pytest.raises(StoppedError, match="with --resume in place of --overwrite"):
        run(options=OPTIONS.replace("100", "2000"), overwrite=True, should_stop=stopping_after(3))
    np.testing.assert_array_equal(
        read_subvolume(Path("results/0/0/seg-0_0_0.npz")).segmentation, first.segmentation
    )
    said = []
    run(options=OPTIONS.replace("100", "2000"), notice=said.append)
    assert "--resume goes on" in said[0]
    made = run(options=OPTIONS.replace("100", "2000"), resume=True)
    assert b"results" in read_subvolume(made.path).request
    request = decode(read_subvolume(made.path).request, message="InferenceRequest")
    assert request.get("inference_options").get("min_segment_size") == 2000


def test_conflicts_name_the_result_and_the_old_ways_out():
    result = Path("results/0/0/seg-0_0_0.npz")
    with pytest.raises(StoppedError):
        run(should_stop=stopping_after(3))
    with pytest.raises(RunConflictError) as other:
        run(options=OPTIONS.replace("100", "2000"))
    said = str(other.value)
    assert said.startswith(f"result {result} was begun with options.")
    assert "choose another segmentation_output_dir, or begin again with --overwrite" in said
    (record,) = Path("results").rglob("*.floodem")
    with exclusive(record / "lock", what="this test"), pytest.raises(RunConflictError) as held:
        run()
    said = str(held.value)
    assert f"another process is working on result {result} (lock " in said
    assert said.endswith("or choose another segmentation_output_dir")


def test_an_old_programs_checkpoint_is_gone_on_with():
    whole = read_subvolume(run().path)
    Path("results/0/0/seg-0_0_0.npz").unlink()
    asked_for = asked()
    with open_volume("images.h5@raw") as volume:
        request = dataclasses.replace(asked_for.segment, device="cpu")
        job = prepare_job(volume, bright_model(), request=request, folder=Path())
    flooder = new_flooder(job)
    flooder.add_seeds(
        seed_positions(request.options.seeds, job.seed_context(flooder.canvas.segmentation))
    )
    while len(flooder.origins) < 2:
        assert flooder.advance()
    cpoint = subvolume_path(Path("results"), (0, 0, 0), suffix=".cpoint")
    write_cpoint(cpoint, checkpoint_of(flooder), overwrite=False)
    said = []
    made = run(notice=said.append)
    assert any("of the old program is gone on with: " in one for one in said)
    result = read_subvolume(made.path)
    np.testing.assert_array_equal(result.segmentation, whole.segmentation)
    assert result.origins.keys() == whole.origins.keys()
    assert result.counters["inference-calls"] == whole.counters["inference-calls"]
    assert not cpoint.exists()


def test_every_field_has_its_row_in_the_table():
    inside = {"image": "DecoratedVolume", "inference_options": "InferenceOptions"}
    inside["alignment_options"] = "AlignmentOptions"
    fields = set()
    for name in SCHEMAS["InferenceRequest"].by_name:
        within = SCHEMAS[inside[name]].by_name if name in inside else [None]
        fields |= {name if one is None else f"{name}.{one}" for one in within}
    assert {row.field for row in FIELDS} == fields
    assert len(FIELDS) == len(fields)


REFUSED = {
    "image.volinfo": {"image": 'volinfo: "/cns/vol.volinfo"'},
    "image.decorator_specs": {"image": 'hdf5: "images.h5@raw" decorator_specs: "[]"'},
    "inference_options.consistency_threshold": {"options": OPTIONS + "consistency_threshold: 0.1"},
    "self_prediction": "self_prediction { threshold: 0.5 }",
    "alignment_options.type": "alignment_options { type: UNKNOWN_ALIGNMENT }",
    "alignment_options.save_raw": "alignment_options { save_raw: true }",
}


@pytest.mark.parametrize("field", [row.field for row in FIELDS if row.support is Support.REFUSED])
def test_what_is_not_served_is_refused_by_name(field):
    how = REFUSED[field]
    with pytest.raises(OptionError, match=field.replace("alignment_options.type", "alignment")):
        asked(how) if isinstance(how, str) else asked(**how)


@pytest.mark.parametrize(
    "harmless",
    [
        "self_prediction { }",
        "alignment_options { type: NO_ALIGNMENT save_raw: false }",
        "batch_size: 64 concurrent_requests: 128",
        "checkpoint_interval: 0",
        'movement_policy_name: "movement.FaceMaxMovementPolicy" movement_policy_args: "{}"',
    ],
)
def test_what_changes_nothing_is_accepted(harmless):
    assert dataclasses.replace(asked(harmless), message=None) == dataclasses.replace(
        asked(), message=None
    )


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ('movement_policy_name: "policies.Mine"', "movement_policy_name 'policies.Mine'"),
        ("movement_policy_args: '{\"delta\": [1,1,1]}'", "did you mean 'deltas'"),
        ("movement_policy_args: '{\"score_threshold\": 1.0}'", "the logit 2.19722"),
        ('seed_policy_args: "{"', "seed_policy_args '{' is not JSON"),
        ('seed_policy_args: "{"', r'write it like "{\"step\": 8}"'),
        ('seed_policy_args: "{\\"stp\\": 1}"', "has no argument 'stp'"),
        ("histogram_masks { image { channels { values: 0 } } }", "without reference_histogram"),
        ("masks { }", "mask without a source"),
        ("masks { image { } }", "has no channels"),
        ("masks { image { channels { min_value: 3 } } }", "max_value is not set and is 0"),
        ("masks { image { channels { channel: 1 values: 3 } } }", "channel 0 only"),
        ('masks { coordinate_expression { expression: "__import__(1)" } }', "is not allowed"),
        ('shift_mask { hdf5: "s.h5:f" }', "shift_mask_threshold 0"),
        ('shift_mask { hdf5: "s.h5:f" } shift_mask_threshold: 4 shift_mask_scale: 0', "below 1"),
        ("init_segmentation { }", "init_segmentation names no volume"),
    ],
)
def test_impossible_values_are_refused_with_their_field(field, said):
    with pytest.raises(UsageError) as refused:
        asked(field)
    assert said in str(refused.value)


def replaced(before: str, after: str):
    text = request_text()
    assert before in text
    request = parse_text(
        text.replace(before, after), message="InferenceRequest", source="request.pbtxt"
    )
    return inference_run(request, box=None)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('segmentation_output_dir: "results"', "", "no segmentation_output_dir"),
        ('model_checkpoint_path: "training/model.ckpt-7"', "", "no model_checkpoint_path"),
        ('hdf5: "images.h5@raw"', "", "image names no volume"),
        ("convstack_3d.ConvStack3DFFNModel", "convnext.Model", "'convnext.Model' is code"),
        ('"PolicyPeaks"', '"PolicyPeeks"', "did you mean PolicyPeaks"),
        ("fov_size", "fov", "did you mean 'fov_size'"),
        ("[9, 9, 7]", "[9, 9]", "three whole numbers"),
    ],
)
def test_incomplete_requests_are_refused_with_what_is_missing(before, after, said):
    with pytest.raises(UsageError) as refused:
        replaced(before, after)
    assert said in str(refused.value)


def test_a_trap_of_old_defaults_is_said_once_each():
    assert asked().notes == ()
    disco, least = asked(
        options=OPTIONS.replace("disco_seed_threshold: 0", "").replace("100", "0")
    ).notes
    assert "disco_seed_threshold is not set" in disco
    assert "write disco_seed_threshold: -1" in disco
    assert "min_segment_size is 0" in least
    (unset,) = asked(options=OPTIONS.replace("pad_value: 0.05", "")).notes
    assert "leaves out pad_value" in unset


def test_options_become_those_of_a_flood():
    options = OPTIONS.replace("x: 1 y: 1 z: 1", "x: 1 y: 2 z: 3") + "consistency_threshold: -1"
    found = asked("checkpoint_interval: 1800", options=options).segment
    assert found.options == FloodOptions(
        pad_value=0.05, move_threshold=0.9, min_segment_size=100, min_boundary_dist=(3, 2, 1)
    )
    assert found.checkpoint_seconds == 1800


def test_a_share_of_the_field_of_view_is_compared_as_float32_had_it():
    options = OPTIONS.replace("disco_seed_threshold: 0", "disco_seed_threshold: 0.04")
    assert asked(options=options).segment.options.disco_seed_threshold == float(np.float32(0.04))


def test_deltas_of_the_movement_policy_are_in_the_order_z_y_x():
    run = asked("movement_policy_args: '{\"deltas\": [1, 2, 3]}'")
    assert (run.model.fov, run.model.deltas) == ((7, 9, 9), (1, 2, 3))
    assert asked().model.deltas == (2, 3, 3)


def test_a_model_file_is_used_as_the_request_says_and_that_is_said():
    model, said = replaced("[3, 3, 2]", "[2, 2, 2]").model.load(
        voxel_size=load_model("training/model.ckpt-7.safetensors").description.voxel_size
    )
    assert model.description.deltas == (2, 2, 2)
    assert said[0] == (
        f"{Path('training/model.ckpt-7.safetensors')} was trained with deltas (2, 3, 3) and is "
        "used with (2, 2, 2), as the request says"
    )


@pytest.mark.parametrize("path", ["training/model.ckpt-7", "training/model.ckpt-7.safetensors"])
def test_a_model_is_named_by_its_file_or_without_the_ending(path):
    assert replaced("training/model.ckpt-7", path).model.path() == (
        Path("training/model.ckpt-7.safetensors"),
        False,
    )


def test_models_that_are_missing_or_others_are_refused():
    with pytest.raises(VolumeNotFoundError, match="neither training/model.ckpt-8.index"):
        run_request(replaced("model.ckpt-7", "model.ckpt-8"))
    with pytest.raises(ModelError, match="says depth 9, and .* has 1"):
        run_request(replaced('\\"depth\\": 1', '\\"depth\\": 9'))
    assert not Path("results").exists()


def test_of_an_image_with_several_channels_the_first_is_taken():
    made = run(image='hdf5: "images.h5:several"')
    labels, _ = wanted_labels()
    np.testing.assert_array_equal(read_subvolume(made.path).segmentation, labels)


@pytest.mark.parametrize(
    ("spec", "uri"),
    [
        ({"driver": "zarr", "kvstore": {"driver": "file", "path": "/data/em.zarr/"}},
         "zarr:///data/em.zarr/"),
        ({"driver": "zarr3", "kvstore": "file:///data/em"}, "zarr3:///data/em"),
        ({"driver": "n5", "kvstore": "gs://bucket/em.n5", "path": "s0"}, "n5://gs://bucket/em.n5/s0"),
        ({"driver": "neuroglancer_precomputed", "kvstore": {
            "driver": "gcs", "bucket": "b", "path": "em"}, "context": {}, "open": True},
         "precomputed://gs://b/em"),
        ({"driver": "zarr", "kvstore": {"driver": "s3", "bucket": "b", "path": "/em"}},
         "zarr://s3://b/em"),
        ({"driver": "zarr", "kvstore": {
            "driver": "http", "base_url": "https://host/", "path": "em"}}, "zarr://https://host/em"),
    ],
)  # fmt: skip
def test_tensorstore_specs_become_addresses(spec, uri):
    volume = make_message("DecoratedVolume", {"tensorstore": json.dumps(spec)})
    assert volume_address(volume, field="image").uri == uri


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "no JSON object"),
        ('{"driver": "cast"}', "floodem reads zarr, zarr3, n5, neuroglancer_precomputed"),
        ('{"driver": ["zarr"]}', "floodem reads zarr"),
        ('{"driver": "zarr"}', "kvstore is None"),
        ('{"driver": "zarr", "kvstore": {"driver": "memory"}}', "floodem reads file, gcs"),
        ('{"driver": "zarr", "kvstore": "ocdbt://x"}', "begins with one of"),
        ('{"driver": "zarr", "kvstore": "gs://b/a.zip|zip:x"}', "no place that floodem reads"),
        ('{"driver": "zarr", "kvstore": {"driver": "file", "path": ""}}', "no path"),
        ('{"driver": "zarr", "kvstore": {"driver": "file", "path": 3}}', "no text"),
        ('{"driver": "zarr", "kvstore": {"driver": "gcs", "path": "a"}}', "no bucket"),
        ('{"driver": "zarr", "kvstore": "gs://b/a", "transform": {}}', "'transform'"),
        ('{"driver": "zarr", "kvstore": "gs://b/a", "scale_indx": 1}', "did you mean scale_index"),
        ('{"driver": "zarr", "kvstore": "gs://b/a", "scale_index": -1}', "level counted from 0"),
    ],
)
def test_tensorstore_specs_that_are_not_served_are_refused_by_name(spec, said):
    volume = make_message("DecoratedVolume", {"tensorstore": spec})
    with pytest.raises(OptionError) as refused:
        volume_address(volume, field="image")
    assert said in str(refused.value)


def masks_of(text: str, **how):
    configs = parse_text(text, message="MaskConfigs", source="masks.pbtxt")
    return mask_rules(configs.get("masks"), **how)


IMAGE = np.arange(6 * 7 * 8, dtype=np.uint16).reshape(6, 7, 8) % 23
BOX = Box.from_shape((6, 7, 8))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("image { channels { max_value: 5 } }", IMAGE <= 5),
        ("image { channels { min_value: 3 max_value: 5 } }", (IMAGE >= 3) & (IMAGE <= 5)),
        ("image { channels { min_value: 3 max_value: 5 invert: true } }",
         ~((IMAGE >= 3) & (IMAGE <= 5))),
        ("image { channels { values: [1, 7] } channels { min_value: 20 max_value: 30 } }",
         np.isin(IMAGE, [1, 7]) | (IMAGE >= 20)),
        ("image { channels { values: [1, 7] } channels { max_value: 2 } } invert: true",
         ~(np.isin(IMAGE, [1, 7]) | (IMAGE <= 2))),
        ("image { channels { values: 4 } } invert: true", IMAGE != 4),
        ("volume { mask { hdf5: 'mask.h5:m' } channels { channel: 1 values: 4 } }", IMAGE == 4),
        ("coordinate_expression { expression: 'z < 2' }",
         np.broadcast_to(np.arange(6)[:, None, None] < 2, IMAGE.shape)),
        ("coordinate_expression { expression: '(x + y) % 3 == 0' } invert: true",
         np.broadcast_to(
             (np.arange(7)[:, None] + np.arange(8)) % 3 != 0, IMAGE.shape)),
    ],
)  # fmt: skip
def test_masks_mean_what_the_old_program_made_of_them(text, masked):
    with h5py.File("mask.h5", "w") as file:
        file["m"] = np.stack([IMAGE * 0, IMAGE])
    rules = masks_of(f"masks {{ {text} }}")
    np.testing.assert_array_equal(build_mask(rules, box=BOX, image=IMAGE), masked)
    assert len(unwritten(rules)) == ("invert: true" in text and text.count("channels") > 1)
    if not unwritten(rules):
        again = [parse_mask(one) for one in mask_texts(rules)]
        np.testing.assert_array_equal(build_mask(again, box=BOX, image=IMAGE), masked)


def test_masks_are_joined_by_or_and_forbid_centres_and_seeds():
    fields = [
        "masks { coordinate_expression { expression: 'x >= 40' } }",
        "masks { image { channels { max_value: 60 } } }",
    ]
    made = run(*fields)
    labels, _ = wanted_labels(
        masks=[parse_mask("where: x >= 40"), parse_mask("image:min=0,max=60")]
    )
    np.testing.assert_array_equal(read_subvolume(made.path).segmentation, labels)
    assert read_subvolume(made.path).counters["skip_restriced_pos"] > 0
    seeds = run("seed_masks { coordinate_expression { expression: 'y < 20' } }", overwrite=True)
    labels, _ = wanted_labels(seed_masks=[parse_mask("where: y < 20")], overwrite=True)
    np.testing.assert_array_equal(read_subvolume(seeds.path).segmentation, labels)


@settings(max_examples=60, deadline=None)
@given(
    field=arrays(
        np.int16, st.tuples(st.just(2), *[st.integers(1, 5)] * 3), elements=st.integers(-9, 9)
    ),
    corner=st.tuples(*[st.integers(0, 4)] * 3),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    window=st.tuples(*[st.tuples(st.integers(-4, 3), st.integers(1, 5))] * 3),
    scale=st.integers(1, 3),
    threshold=st.integers(1, 9),
)
def test_shift_masks_equal_a_slow_twin(
    tmp_path_factory, field, corner, shape, window, scale, threshold
):
    path = tmp_path_factory.mktemp("shift") / "shift.h5"
    with h5py.File(path, "w") as file:
        file["field"] = field
    box = Box.from_shape(shape, start=corner)
    starts, sizes = zip(*window, strict=True)
    rule = ShiftMask(
        uri=f"{path}@field",
        window=Box.from_shape(sizes, start=starts),
        threshold=threshold,
        scale=scale,
        is_confined=True,
    )
    found = rule.masked(MaskPlace(box=box))
    large = (np.abs(field.astype(int)) >= threshold).any(axis=0)
    first = [start // step for start, step in zip(corner, (1, scale, scale), strict=True)]
    last = [(stop - 1) // step for stop, step in zip(box.stop, (1, scale, scale), strict=True)]
    for position in np.ndindex(shape):
        wanted = False
        low = [corner[axis] + position[axis] + starts[axis] for axis in range(3)]
        for offset in np.ndindex(sizes):
            voxel = [low[axis] + offset[axis] for axis in range(3)]
            at = tuple(v // step for v, step in zip(voxel, (1, scale, scale), strict=True))
            inside = all(a <= v <= b for a, v, b in zip(first, at, last, strict=True))
            held = all(v < length for v, length in zip(at, large.shape, strict=True))
            wanted |= inside and held and bool(large[at])
        assert found[position] == wanted


def test_no_field_of_view_is_centred_near_a_large_shift():
    field = np.zeros((2, *SIZE), np.int16)
    field[1, 12, 20, 30] = -5
    with h5py.File("shift.h5", "w") as file:
        file["field"] = field
    # forbids all positions with x from 27 to 33, which cuts every tube in two
    shifted = (
        'shift_mask { hdf5: "shift.h5:field" } shift_mask_threshold: 5 '
        "shift_mask_fov { start { x: -3 y: -20 z: -12 } size { x: 7 y: 41 z: 24 } }"
    )
    result = read_subvolume(run(shifted).path)
    assert result.counters["skip_restriced_pos"] > 0
    _, whole = wanted_labels()
    assert len(result.origins) == 2 * whole.segments
    # seeds are sought as without it
    assert result.counters["seed-policy-calls"] == whole.summary["counters"]["seeds"] + 1
    with pytest.raises(UsageError, match="has no channel 1"):
        run(shifted.replace("shift.h5:field", "images.h5:raw"), overwrite=True)


SECTIONS = st.one_of(
    arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=24)),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70)).map(
        lambda given: (
            np.random.default_rng(given[0])
            .normal(120, 25, (2, *given[1:]))
            .clip(0, 255)
            .astype(np.uint8)
        )
    ),
)


@settings(max_examples=40, deadline=None)
@given(sections=SECTIONS, is_wide=st.booleans())
def test_contrast_is_equalised_as_skimage_does(sections, is_wide):
    for section in sections.astype(np.uint16) * 200 + 3 if is_wide else sections:
        np.testing.assert_array_equal(equalise(section), equalize_adapthist(section))


@settings(max_examples=40, deadline=None)
@given(sections=SECTIONS, darkest=st.integers(0, 255), is_masked=st.booleans())
def test_histograms_are_matched_as_the_old_program_did(sections, darkest, is_masked):
    lut = np.sort(np.random.default_rng(1).integers(0, 256, 256)).astype(np.uint8)
    ignored = sections < darkest if is_masked else None
    wanted = sections.copy()
    for z, section in enumerate(sections):
        levels = (equalize_adapthist(section) * 255).astype(np.uint8)
        valid = levels if ignored is None else levels[~ignored[z]]
        if not valid.size:
            continue
        cdf, bins = cumulative_distribution(valid)
        cdf, bins = np.append(cdf, 1.0), np.append(bins, 255)
        wanted[z] = lut[(cdf[np.searchsorted(bins, levels)] * 255).astype(np.uint8)]
    np.testing.assert_array_equal(match_histogram(sections, lut, ignored=ignored), wanted)


def test_a_flood_sees_the_matched_image_and_masks_the_raw_one():
    lut = np.arange(255, -1, -1, dtype=np.uint8)
    np.savez("lut.npz", lut=lut)
    raw, _ = bright_tubes(SIZE)
    box = Box((2, 0, 0), (24, 40, 60))
    mask = "masks { image { channels { min_value: 200 max_value: 255 } } }"
    ignored = "histogram_masks { image { channels { max_value: 60 } } }"
    found = asked('reference_histogram: "lut.npz"', ignored, mask, box=box)
    part = raw[box.slices()]
    with found.image.open(box=box) as image:
        np.testing.assert_array_equal(image.read(), match_histogram(part, lut, ignored=part <= 60))
    masked = build_mask(found.segment.masks, box=box)
    np.testing.assert_array_equal(masked, part >= 200)
    made = run_request(found, device="cpu")
    assert read_subvolume(made.path).segmentation.shape == box.shape


@pytest.mark.parametrize(
    ("arrays_in_it", "said"),
    [
        ({"lut": np.zeros(255, np.uint8)}, "a table of 256 uint8"),
        ({"lut": np.zeros(256)}, "a table of 256 uint8"),
        ({"table": np.zeros(256, np.uint8)}, "no member 'lut'"),
    ],
)
def test_lookup_tables_that_are_none_are_refused(arrays_in_it, said):
    np.savez("lut.npz", **arrays_in_it)
    with pytest.raises(FloodemError, match=said):
        run('reference_histogram: "lut.npz"')
    assert not Path("results").exists()


def test_an_initial_segmentation_stays_and_counts_as_certain():
    first = np.zeros(SIZE, np.uint32)
    first[:, :10] = 7
    with h5py.File("first.h5", "w") as file:
        file["labels"] = first
    made = run('init_segmentation { hdf5: "first.h5:labels" }')
    labels = read_subvolume(made.path).segmentation
    assert (labels[:, :10] == 7).all()
    assert labels.max() > 7
    probabilities = read_probabilities(made.path.with_suffix(".prob"))
    assert (probabilities[:, :10] == 255).all()
    assert ((probabilities > 0) == (labels > 0)).all()


def test_origins_of_an_old_result_are_seeds_in_reverse():
    box = Box((2, 4, 6), (24, 40, 64))
    first = read_subvolume(run(box=box).path)
    again = 'seed_policy_args: "{\\"segmentation_dir\\": \\"results\\"}" '
    text = request_text(again).replace("PolicyPeaks", "PolicyInvertOrigins")
    text = text.replace('output_dir: "results"', 'output_dir: "reverse"')
    request = parse_text(text, message="InferenceRequest", source="request.pbtxt")
    found = inference_run(request, box=box)
    expected = [
        [a + b for a, b in zip(first.origins[label].start_zyx, box.start, strict=True)]
        for label in sorted(first.origins, reverse=True)
    ]
    assert found.segment.options.seeds.args["positions"] == expected
    second = read_subvolume(run_request(found, device="cpu").path)
    assert len(second.origins) > 1
    starts = [info.start_zyx for _, info in sorted(second.origins.items())]
    assert starts == [info.start_zyx for _, info in sorted(first.origins.items(), reverse=True)]


def test_origins_are_found_inside_other_policies():
    run()
    inner = '{\\"segmentation_dir\\": \\"results\\"}'
    sequence = f'seed_policy_args: "{{\\"policies\\": [[\\"PolicyInvertOrigins\\", {inner}]]}}"'
    text = request_text(sequence).replace("PolicyPeaks", "SequentialPolicies")
    request = parse_text(text, message="InferenceRequest", source="request.pbtxt")
    ((name, args),) = inference_run(request, box=None).segment.options.seeds.args["policies"]
    assert name == "ExplicitSeeds"
    assert args["positions"]


def heard(arguments, *, program="run_inference"):
    """Run an old program; return what it said as result, and its notices."""
    said, noticed = [], []
    found = find_program(program)
    translation = found.translation(found.parse(arguments))
    console = Console(
        say=said.append, notice=noticed.append, progress=None, should_stop=lambda: False
    )
    translation.work(console)
    return said, [*translation.notes, *noticed]


def test_run_inference_takes_the_text_or_the_file_of_a_request():
    Path("request.pbtxt").write_text(request_text(), encoding="utf-8")
    box = "--bounding_box=start { x:0 y:0 z:0 } size { x:64 y:40 z:24 }"
    said, notes = heard([f"--inference_request={request_text()}", box, "--require_gpu"])
    assert said[0].startswith("results/0/0/seg-0_0_0.npz: ")
    assert "in box 0:24,0:40,0:64" in said[0]
    assert notes[0].startswith("--require_gpu has no effect here")
    result = Path("results/0/0/seg-0_0_0.npz").read_bytes()
    said, notes = heard(["--inference_request", "request.pbtxt", box])
    assert not said
    assert "exists already" in notes[0]
    said, _ = heard(["--inference_request", "request.pbtxt", box, "--overwrite", "--device=cpu"])
    assert said
    first, again = (read_subvolume(Path(path)) for path in ("results/0/0/seg-0_0_0.npz",) * 2)
    assert len(result) > 0
    np.testing.assert_array_equal(first.segmentation, again.segmentation)


@pytest.mark.parametrize("program", ["run_inference", "run_inference_win"])
def test_a_request_is_printed_from_text_binary_or_result_and_nothing_is_done(program):
    message = parse_text(request_text(), message="InferenceRequest", source="request.pbtxt")
    Path("request.pbtxt").write_text(request_text(), encoding="utf-8")
    Path("request.pb").write_bytes(encode(message))  # which happens to be UTF-8
    accented = message.replacing(seed_policy_args="é" * 80)
    Path("long.pb").write_bytes(encode(accented))
    made = run(box=Box((0, 0, 0), (24, 40, 40)))
    result = made.path.rename("seg-0_0_0.npz")
    flag = "--inference_request" if program == "run_inference" else "--parameter_file"
    size = [f"--image_size_{axis}=8" for axis in "xyz"] if flag == "--parameter_file" else []
    printed_ones = [("request.pbtxt", message), ("request.pb", message), ("long.pb", accented)]
    for path, wanted in [*printed_ones, (str(result), message)]:
        words = [*size, f"{flag}={path}", "--print_request"]
        said, notes = heard(words, program=program)
        assert "\n".join(said) + "\n" == format_text(wanted)
        assert not notes
    assert not list(Path("results").rglob("*.npz"))


def test_the_run_of_a_result_is_repeated_in_its_box():
    box = Box((2, 4, 6), (22, 36, 60))
    first = run(box=box)
    kept = first.path.rename("seg-6_4_2.npz")
    said, _ = heard([f"--inference_request={kept}", "--device=cpu"])
    assert "in box 2:22,4:36,6:60" in said[0]
    before, again = read_subvolume(kept), read_subvolume(first.path)
    np.testing.assert_array_equal(again.segmentation, before.segmentation)
    assert again.request == before.request


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"image_mean: 1\n\xff\xfe", "neither text in UTF-8 nor a binary InferenceRequest"),
        (b"\xf8\x07\x01", "holds no known field"),
        (b"image_mean: 1\nimage_men: 2", "given.pb, line 2, column 1: InferenceRequest has no"),
    ],
)
def test_a_request_file_that_is_none_is_refused_by_its_name(data, said):
    Path("given.pb").write_bytes(data)
    with pytest.raises(UsageError) as refused:
        heard(["--inference_request=given.pb"])
    assert "given.pb" in str(refused.value)
    assert said in str(refused.value)


def test_a_result_without_a_request_cannot_be_repeated():
    made = run()
    write_subvolume(
        Path("bare/seg-0_0_0.npz"),
        segmentation=read_subvolume(made.path).segmentation,
        origins={},
        overlaps={},
        request=b"",
        counters={},
        overwrite=False,
    )
    with pytest.raises(UsageError, match="carries no request"):
        heard(["--inference_request=bare/seg-0_0_0.npz"])


def test_run_inference_win_takes_the_box_in_flags():
    Path("request.pbtxt").write_text(request_text(), encoding="utf-8")
    size = ["--image_size_x", "54", "--image_size_y", "32", "--image_size_z", "20"]
    start = ["--image_start_x=6", "--image_start_y=4", "--image_start_z=2"]
    said, _ = heard(
        [*size, *start, "--parameter_file", "request.pbtxt"], program="run_inference_win"
    )
    assert said[0].startswith(f"{Path('results/6/4/seg-6_4_2.npz')}: ")
    labels, _ = wanted_labels(box=Box((2, 4, 6), (22, 36, 60)))
    found = read_subvolume(Path("results/6/4/seg-6_4_2.npz")).segmentation
    np.testing.assert_array_equal(found, labels)


def test_inference_options_of_the_command_line_go_before_those_of_the_request():
    box = "--bounding_box=start { x: 0 y: 0 z: 0 } size { x: 20 y: 14 z: 10 }"
    options = "--inference_options=min_segment_size: 123456"
    heard([f"--inference_request={request_text()}", options, box])
    result = read_subvolume(Path("results/0/0/seg-0_0_0.npz"))
    options = decode(result.request, message="InferenceRequest").get("inference_options")
    assert options.get("min_segment_size") == 123456
    assert options.get("pad_value") == 0.05
    assert not result.segmentation.any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--overwrite", "--resume"], "give one of them"),
        (["--bounding_box=start { x: 1 }"], "--bounding_box has the size 0, 0, 0"),
        (["--bounding_box=size { w: 1 }"], "--bounding_box, line 1, column 8"),
        (["--inference_options=pad: 1"], "did you mean pad_value"),
    ],
)
def test_wrong_flags_of_run_inference_are_refused(arguments, said):
    with pytest.raises(UsageError) as refused:
        heard([f"--inference_request={request_text()}", *arguments])
    assert said in str(refused.value)


def test_a_box_outside_the_image_is_refused_and_leaves_nothing():
    with pytest.raises(FloodemError, match="is not inside images.h5@raw"):
        run(box=Box((0, 0, 0), (24, 40, 65)))
    assert not Path("results").exists()


def printed(*words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return out.getvalue()


def test_the_explanation_does_the_same_when_it_is_typed():
    fields = (
        "masks { coordinate_expression { expression: 'x >= 50' } } "
        "masks { image { channels { max_value: 9 } } }"
    )
    words = ["run_inference", f"--inference_request={request_text(fields)}"]
    box = "--bounding_box=start { x:0 y:0 z:2 } size { x:60 y:40 z:22 }"
    (command,) = printed("legacy", *words, box, "--explain").splitlines()
    program, *arguments = shlex.split(command)
    assert program == "floodem"
    assert arguments[arguments.index("--box") + 1] == "2:24,0:40,0:60"
    printed(*arguments, "--device", "cpu")
    with open_volume("results/0/0/seg-0_0_2.zarr") as volume:
        labels = volume.read()
    heard([*words[1:], box])
    np.testing.assert_array_equal(
        read_subvolume(Path("results/0/0/seg-0_0_2.npz")).segmentation, labels
    )
    assert labels.any()


def test_an_explanation_of_a_tensorflow_checkpoint_imports_it_first():
    text = request_text().replace("training/model.ckpt-7", "models/model.ckpt-9")
    importing, segmenting = printed(
        "legacy", "run_inference", f"--inference_request={text}", "--explain"
    ).splitlines()
    words = shlex.split(importing)
    assert words[1:4] == ["import-model", "models/model.ckpt-9", "results/model.safetensors"]
    assert words[words.index("--fov") + 1] == "7,9,9"
    assert "--model results/model.safetensors" in segmenting


def test_what_no_option_says_is_said():
    field = 'shift_mask { hdf5: "shift.h5:field" } shift_mask_threshold: 5'
    found = find_program("run_inference")
    translation = found.translation(found.parse([f"--inference_request={request_text(field)}"]))
    assert translation.commands == ()
    assert translation.remarks == (
        "no option of `floodem segment` says shift_mask: only this program does",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [(CONSENSUS, "floodem consensus"), (RESEGMENTATION, "floodem agglomerate")],
)
def test_other_requests_are_named_with_the_command_for_them(text, said):
    with pytest.raises(UsageError, match=f"which no inference runs: that is for `{said}`"):
        parse_inference_request(text, source="request.pbtxt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONSENSUS.replace("reverse", ""), "segmentation2 names no directory"),
        (CONSENSUS.replace("0.6", "6"), "segmentation1 has the threshold 6"),
        (CONSENSUS.replace('"consensus"', '""'), "no segmentation_output_dir"),
        (CONSENSUS.replace("z<1", "z.q<1"), "is not allowed"),
        (RESEGMENTATION.replace("id_a: 1 ", ""), "point 2 names no id_a"),
        (RESEGMENTATION.replace("radius { x: 50 y: 50 z: 25 }", "", 1), "radius is below 1"),
        (RESEGMENTATION.replace("fraction: 0.6", "fraction: 60"), "no fraction"),
        (RESEGMENTATION.replace('init_segmentation { hdf5: "seg.h5:labels" }', ""),
         "inference.init_segmentation names no volume"),
    ],
)  # fmt: skip
def test_other_requests_are_checked(text, said):
    with pytest.raises(UsageError) as refused:
        parse_inference_request(text, source="request.pbtxt")
    assert said in str(refused.value)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_inference_request_is_served_or_refused(data):
    request = data.draw(messages("InferenceRequest"))
    with contextlib.suppress(FloodemError):
        found = inference_run(request, box=None)
        assert found.message == request
    assert parse_text(format_text(request), message="InferenceRequest", source="text") == request


GOLDEN = {
    "fib25": {
        "program": "run_inference",
        "checkpoint": "fib25/model.ckpt-27465036",
        "mean": 128,
        "stddev": 33,
        "args": {"depth": 12, "fov_size": [33, 33, 33], "deltas": [8, 8, 8]},
        "size_xyz": (80, 80, 80),
    },
    "snemi3d": {
        "program": "run_inference_win",
        "checkpoint": "snemi3d/model.ckpt-7000000",
        "mean": 131,
        "stddev": 62,
        "args": {"depth": 9, "fov_size": [33, 33, 17], "deltas": [8, 8, 4]},
        "size_xyz": (112, 112, 40),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_segmentations_come_out_of_the_old_command_lines(shared_data, name):
    golden = GOLDEN[name]
    x, y, z = golden["size_xyz"]
    request = f"""
        image {{
          hdf5: "{(shared_data / "golden").as_posix()}/{name}-image.h5:raw"
        }}
        image_mean: {golden["mean"]}
        image_stddev: {golden["stddev"]}
        checkpoint_interval: 1800
        seed_policy: "PolicyPeaks"
        model_checkpoint_path: "{(shared_data / golden["checkpoint"]).as_posix()}"
        model_name: "convstack_3d.ConvStack3DFFNModel"
        model_args: {json.dumps(json.dumps(golden["args"]))}
        segmentation_output_dir: "results/{name}"
        inference_options {{
          init_activation: 0.95
          pad_value: 0.05
          move_threshold: 0.9
          min_boundary_dist {{ x: 1 y: 1 z: 1}}
          segment_threshold: 0.6
          min_segment_size: 1000
        }}
    """
    if golden["program"] == "run_inference":
        box = f"start {{ x:0 y:0 z:0 }} size {{ x:{x} y:{y} z:{z} }}"
        words = [f"--inference_request={request}", "--bounding_box", box]
    else:
        Path("inference.pbtxt").write_text(request, encoding="utf-8")
        sizes = [f"--image_size_{axis}={size}" for axis, size in zip("xyz", (x, y, z), strict=True)]
        words = [*sizes, "--parameter_file", "inference.pbtxt"]
    heard([*words, "--device=cpu"], program=golden["program"])
    result = read_subvolume(Path(f"results/{name}/0/0/seg-0_0_0.npz"))
    with np.load(shared_data / "golden" / f"{name}-segmentation.npz", allow_pickle=False) as wanted:
        assert result.segmentation.dtype == wanted["segmentation"].dtype
        assert result.segmentation.tobytes() == wanted["segmentation"].tobytes()
        probabilities = read_probabilities(Path(f"results/{name}/0/0/seg-0_0_0.prob"))
        assert np.abs(probabilities.astype(int) - wanted["qprob"]).max() <= 1
    expected = json.loads((shared_data / "golden" / f"{name}-origins.json").read_text())
    assert expected["origins"] == {
        str(label): {"start_zyx": list(info.start_zyx), "iters": info.iters}
        for label, info in result.origins.items()
    }
    assert expected["overlaps"] == {
        str(label): [list(found), list(found.values())] for label, found in result.overlaps.items()
    }
    assert result.counters == {
        counter: value
        for counter, value in expected["counters"].items()
        if not counter.endswith("-time-ms")
    }
