"""What a user can get wrong in `floodem segment` ends in one sentence and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.torch import save as serialise

from bright import bright_model, bright_tubes
from floodem.volumes import open_volume
from reference.tf_bundle import conv_stack_variables, write_bundle
from refusals import (
    OPTIONS,
    STOPPED,
    USAGE,
    everything_in,
    floodem,
    lay_out,
    leftovers,
    refused,
    results,
    segment,
    signals_at,
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder with an image and a model."""
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path)
    return tmp_path


def segment_refused(*arguments, says, code=3):
    return refused("segment", *arguments, *OPTIONS, says=says, code=code)


def write_images() -> None:
    image = bright_tubes()[0]
    Path("cut.npy").write_bytes(Path("em.npy").read_bytes()[:30_000])
    Path("empty.npy").write_bytes(b"")
    Path("notes.txt").write_text("grey levels", encoding="utf-8")
    np.save("flat.npy", image[0])
    np.save("tiny.npy", image[:5])
    np.save("complex.npy", image.astype(complex))
    with h5py.File("em.h5", "w") as file:
        file["raw"] = image
        file["flat"] = image[0]
        file["outside"] = h5py.ExternalLink("other.h5", "raw")
    with h5py.File("other.h5", "w") as file:
        file["raw"] = image
    Path("cut.h5").write_bytes(Path("em.h5").read_bytes()[:40_000])


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("nope.npy", ("no nope.npy", "nearest there are", "em.npy")),
        ("notes.txt", ("format of notes.txt", "use a known ending")),
        ("cut.npy", ("cut.npy", "cut short")),
        ("empty.npy", ("empty.npy", "cut short")),
        ("cut.h5@raw", ("cut.h5", "cut short")),
        ("em.h5@rwa", ("em.h5@rwa", "'rwa' is not there", "it holds raw")),
        ("em.h5@outside", ("em.h5@outside", "link into another file", "other.h5", "open that")),
        ("flat.npy", ("flat.npy", "2-D image (40 x 64)", "put the sections into one folder")),
        ("em.h5@flat", ("em.h5@flat", "2-D image (40 x 64)")),
        ("complex.npy", ("complex.npy", "complex128")),
        ("tiny.npy", ("tiny.npy", "(5, 40, 64)", "field of view (7, 9, 9)", "larger image")),
    ],
)
def test_an_image_that_cannot_be_used_is_refused(image, says):
    write_images()
    segment_refused(image, "seg.zarr", says=says)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_grey_levels_that_are_no_numbers_are_placed_before_anything_is_flooded(value):
    image = bright_tubes()[0].astype(np.float64)
    image[5, 6, 7] = image[5, 6, 9] = value
    np.save("em.npy", image)
    segment_refused(
        "em.npy",
        "seg.zarr",
        says=(f"em.npy holds {value} at 5,6,7 (z,y,x)", "first of 2", "replace them or give a"),
    )
    assert segment("em.npy", "seg.zarr", "--box", "6:24,0:40,0:64").code == 0


def test_an_image_of_one_grey_level_has_no_segments_and_says_so():
    np.save("em.npy", np.full((24, 40, 64), 130, np.uint8))
    ended = segment("em.npy", "seg.zarr")
    assert ended.code == 0
    assert "note: PolicyPeaks found no seed in box 0:24,0:40,0:64" in ended.err
    assert "0 segments" in ended.out
    with open_volume("seg.zarr") as volume:
        assert not volume.read().any()


def write_models() -> None:
    model = bright_model()
    weights = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    about = model.description.to_json()

    def write(name, *, with_weights=weights, **changes):
        text = json.dumps({**about, **changes})
        Path(f"{name}.safetensors").write_bytes(serialise(with_weights, {"floodem": text}))

    broken = {**weights, "last.bias": weights["last.bias"].clone().fill_(float("nan"))}
    write("nan", with_weights=broken)
    write("deep", arguments={"depth": 10**9, "features": 2})
    write("wide", arguments={"depth": 1, "features": 10**9})
    write("mean", image_mean=float("nan"))
    write("words", image_mean="bright")
    write("name", network=["conv_stack"])
    write("arguments", arguments=3)
    write("field", fov=[7, 9, 99_999])
    content = Path("m.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(content[: len(content) // 2])
    Path("empty.safetensors").write_bytes(b"")
    Path("list.safetensors").write_bytes(serialise(weights, {"floodem": "[1]"}))
    Path("brackets.safetensors").write_bytes(serialise(weights, {"floodem": "[" * 100_000}))
    Path("plain.safetensors").write_bytes(serialise(weights))
    Path("models").mkdir()
    write_bundle(Path("model.ckpt-7"), conv_stack_variables(depth=1, features=2))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nope.safetensors", ("no model file nope.safetensors", "floodem import-model")),
        ("models", ("models is a folder", "floodem import-model")),
        ("model.ckpt-7", ("no model file model.ckpt-7", "floodem import-model")),
        ("model.ckpt-7.index", ("model.ckpt-7.index", "floodem import-model")),
        ("model.ckpt-7.data-00000-of-00001", ("model.ckpt-7", "floodem import-model")),
        ("em.npy", ("em.npy is not a whole safetensors file", "copy or download it again")),
        ("cut.safetensors", ("cut.safetensors is not a whole", "copy or download it again")),
        ("empty.safetensors", ("empty.safetensors is not a whole", "copy or download")),
        ("plain.safetensors", ("plain.safetensors", "no floodem description", "import-model")),
        ("list.safetensors", ("list.safetensors", "no JSON object", "copy it again")),
        ("brackets.safetensors", ("brackets.safetensors",)),
        ("nan.safetensors", ("nan.safetensors", "last.bias", "not finite", "take an earlier")),
        ("deep.safetensors", ("deep.safetensors", "depth 1000000000", "1 to 1024")),
        ("wide.safetensors", ("wide.safetensors", "features 1000000000", "1 to 1024")),
        ("mean.safetensors", ("mean.safetensors", "image mean nan", "give grey levels")),
        ("words.safetensors", ("words.safetensors", "damaged", "copy the file again")),
        ("name.safetensors", ("name.safetensors", "['conv_stack'] is no name", "copy")),
        ("arguments.safetensors", ("arguments.safetensors", "damaged")),
        ("field.safetensors", ("field of view (7, 9, 99999)", "give a larger image")),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(model, says):
    write_models()
    refused("segment", "em.npy", "seg.zarr", "--model", model, "--device", "cpu", says=says)


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (("--box", "24:0,0:40,0:64"), ("--box", "(24, 0, 0)", "(0, 40, 64)"), USAGE),
        (("--box", "0:24,0:40"), ("--box", "'0:24,0:40'", "write z0:z1,y0:y1,x0:x1"), USAGE),
        (("--box", ""), ("--box", "write z0:z1,y0:y1,x0:x1"), USAGE),
        (("--box", "0:24,0:40,0:65"), ("0:24,0:40,0:65", "em.npy", "0:24,0:40,0:64"), 3),
        (("--box", "90:99,0:40,0:64"), ("90:99,0:40,0:64", "give a part of that"), 3),
        (("--box", "3:3,0:40,0:64"), ("3:3,0:40,0:64", "field of view", "larger box"), 3),
        (("--box", "0:7,0:9,0:8"), ("0:7,0:9,0:8", "(7, 9, 9)", "larger box"), 3),
        (("--seeds", "PolicyPeeks"), ("'PolicyPeeks'", "did you mean PolicyPeaks"), USAGE),
        (("--seeds", 'PolicyGrid3d {"step": 0}'), ("step is 0", "at least 1"), USAGE),
        (("--seeds", "PolicyGrid3d {"), ("'{'", "not JSON", "write them like"), USAGE),
        (("--seeds", "nope.csv"), ("nope.csv", "give a CSV file"), 3),
        (("--mask", "nope.npy"), ("no nope.npy", "nearest"), 3),
        (("--seed-mask", "volume:nope.npy,values=1"), ("no nope.npy",), 3),
        (("--mask", "where: q < 1"), ("'q < 1'", "'q' is not allowed", "it may hold x, y, z"), 2),
        (("--seed-mask", "image:min=a"), ("'image:min=a'", "'a' is no number", "write"), USAGE),
        (("--init-segmentation", "nope.npy"), ("no nope.npy", "nearest"), 3),
        (("--min-boundary-dist", "1,1"), ("--min-boundary-dist", "'1,1'", "write z,y,x"), USAGE),
        (("--seed-anisotropy", "1,1"), ("--seed-anisotropy", "'1,1'", "write z,y,x"), USAGE),
        (("--seed-anisotropy", "0,1,1"), ("(0.0, 1.0, 1.0)", "for example 5,1,1"), USAGE),
        (("--pad", "2"), ("pad_value 2.0", "between 0 and 1"), USAGE),
        (("--pad", "1e-60"), ("pad_value 1e-60", "float32"), USAGE),
        (("--init-activation", "0.99999999999"), ("init_activation 0.99", "float32"), USAGE),
        (("--min-segment-size", "0"), ("min_segment_size 0", "at least 1"), USAGE),
        (("--checkpoint-seconds", "nan"), ("checkpoint_seconds nan", "give seconds"), USAGE),
        (("--device", "tpu"), ("'tpu'", "choose auto, cpu, cuda"), USAGE),
        (("--dtype", "float64"), ("'float64'", "choose auto, float32"), USAGE),
        (
            ("--seeds", 'PolicyInvertOrigins {"segmentation_dir": "nope"}'),
            ("no origins.json for nope", "give the path"),
            3,
        ),
    ],
)
def test_options_that_cannot_be_meant_are_refused(arguments, says, code):
    command = ("segment", "em.npy", "seg.zarr", *OPTIONS, *arguments)
    refused(*command, says=says, code=code)


@pytest.mark.parametrize(
    ("destination", "says", "code"),
    [
        ("seg.xyz", ("format of seg.xyz", "use a known ending"), 3),
        ("seg.tif", ("seg.tif", "not uint64", "another format"), 3),
        ("seg.png", ("seg.png", "name a folder"), 3),
        ("file/seg.zarr", ("file/seg.zarr", "file is a file", "check the address"), 3),
        ("blocked.zarr", ("blocked.zarr.floodem is a file", "move the file away"), 3),
        ("em.npy", ("em.npy is the image of this run", "choose another destination"), 3),
        ("mine.zarr", ("mine.zarr", "choose another destination"), 3),
        ("em.h5@group", ("group in em.h5 is a group", "choose another name"), 3),
        ("http://somewhere/seg.zarr", ("http://somewhere/seg.zarr is remote", "convert"), 3),
        (".", ("'.' names no file", "labels.zarr"), USAGE),
        ("zarr:///", ("'zarr:///' names no file", "labels.zarr"), USAGE),
        ("", ("address of a volume is empty", "give a path"), USAGE),
        ("\udce9.zarr", ("not text in UTF-8", "choose a name"), USAGE),
    ],
)
def test_a_destination_that_cannot_be_made_is_refused_before_the_flood(destination, says, code):
    Path("file").write_text("not a folder", encoding="utf-8")
    Path("blocked.zarr.floodem").write_text("not a folder", encoding="utf-8")
    Path("mine.zarr").mkdir()
    Path("mine.zarr", "notes.txt").write_text("mine", encoding="utf-8")
    with h5py.File("em.h5", "w") as file:
        file["group/raw"] = bright_tubes()[0]
    segment_refused("em.npy", destination, says=says, code=code)


@pytest.mark.parametrize(
    ("address", "says", "code"),
    [
        ("seg.h5@labels", ("both go to seg.h5@labels", "choose two"), USAGE),
        ("seg.h5", ("both go to seg.h5@labels", "choose two"), USAGE),
        ("em.npy", ("em.npy is the image", "choose another destination"), 3),
        ("m.safetensors", ("m.safetensors is the model", "choose another destination"), 3),
        ("mine.npy", ("mine.npy exists already", "--overwrite"), 3),
        ("p.xyz", ("format of p.xyz", "use a known ending"), 3),
    ],
)
def test_probabilities_go_only_where_nothing_is_lost(address, says, code):
    np.save("mine.npy", np.ones((3, 3, 3)))
    segment_refused("em.npy", "seg.h5@labels", "--probabilities", address, says=says, code=code)


@pytest.mark.parametrize(
    ("image", "destination"),
    [
        ("em.npy", "./em.npy"),
        ("em.h5", "em.h5@raw"),
        ("em.h5@raw", "em.h5:raw"),
        ("em.h5@/raw", "em.h5"),
        ("em.zarr@raw", "zarr://em.zarr/raw"),
        ("em.zarr", "em.zarr@raw"),
    ],
)
def test_no_option_lets_a_run_overwrite_its_image(image, destination):
    with h5py.File("em.h5", "w") as file:
        file["raw"] = bright_tubes()[0]
    assert floodem("convert", "em.npy", "zarr://em.zarr/raw").code == 0
    says = (f"{destination} is the image of this run",)
    segment_refused(image, destination, "--overwrite", says=says)


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [
        ("--mask", "other.npy", "mask"),
        ("--seed-mask", "volume:other.npy,max=0", "mask"),
        ("--init-segmentation", "other.npy", "initial segmentation"),
    ],
)
def test_no_option_lets_a_run_overwrite_its_other_inputs(option, value, what):
    np.save("other.npy", np.zeros((24, 40, 64), np.uint32))
    says = (f"other.npy is the {what} of this run",)
    segment_refused("em.npy", "other.npy", option, value, "--overwrite", says=says)


def test_a_destination_in_new_folders_is_made_as_convert_does():
    assert segment("em.npy", "new/place/seg.zarr").code == 0
    assert floodem("convert", "em.npy", "newer/place/em.zarr").code == 0
    assert {"new/place/seg.zarr", "newer/place/em.zarr"} <= everything_in(Path()).keys()


def test_new_folders_are_taken_away_again_when_a_run_is_refused():
    says = ("choose another",)
    segment_refused("em.npy", "new/place/seg.tif", says=("seg.tif",))
    segment_refused("em.npy", "n/seg.zarr", "--probabilities", "n/seg.zarr", says=(), code=USAGE)
    seeds = ("--seeds", 'PolicyInvertOrigins {"segmentation_dir": "nope"}')
    segment_refused("em.npy", "new/seg.zarr", *seeds, says=("nope",))
    segment_refused("em.npy", "new/../em.npy", says=says)


@pytest.mark.parametrize("without", ["image", "model"])
def test_missing_arguments_are_usage_errors(without):
    arguments = ["segment", "em.npy", "seg.zarr", *OPTIONS]
    del arguments[1 if without == "image" else 3 : 3 if without == "image" else 5]
    ended = floodem(*arguments)
    assert ended.code == USAGE
    (line,) = ended.err.splitlines()
    assert line.startswith("error: missing ")
    assert "floodem segment --help" in line


def test_a_foreign_volume_at_the_destination_is_kept_also_by_a_resumed_run():
    """A run was stopped; somebody else wrote to its destination before it went on."""
    with signals_at(5):
        assert segment("em.npy", "seg.npy").code == STOPPED
    np.save("seg.npy", np.ones((3, 3, 3)))
    segment_refused("em.npy", "seg.npy", says=("seg.npy exists already", "no run of floodem"))
    assert segment("em.npy", "seg.npy", "--overwrite").code == 0


def test_probabilities_asked_for_too_late_are_not_silently_missing():
    assert segment("em.npy", "seg.zarr").code == 0
    says = ("seg.zarr is finished, but without p.zarr", "--overwrite")
    segment_refused("em.npy", "seg.zarr", "--probabilities", "p.zarr", says=says)
    wanted = ("em.npy", "seg.zarr", "--probabilities", "p.zarr")
    assert segment(*wanted, "--overwrite").code == 0
    assert "was finished by an earlier run" in segment(*wanted).out


def test_a_refused_overwrite_keeps_the_result_and_its_record():
    assert segment("em.npy", "seg.zarr").code == 0
    segment_refused(
        "em.npy", "seg.zarr", "--overwrite", "--box", "0:3,0:3,0:3", says=("0:3,0:3,0:3",)
    )
    seeds = ("--seeds", 'PolicyInvertOrigins {"segmentation_dir": "nope"}')
    segment_refused("em.npy", "seg.zarr", "--overwrite", *seeds, says=("nope",))


def test_overwrite_replaces_the_result_and_only_what_a_run_has_made():
    assert segment("em.npy", "seg.zarr", "--probabilities", "p.zarr").code == 0
    Path("seg.zarr.floodem/notes.txt").write_text("mine", encoding="utf-8")
    segment_refused("em.npy", "seg.zarr", "--pad", "0.1", says=("pad_value = 0.05", "0.1"))
    assert segment("em.npy", "seg.zarr", "--pad", "0.1", "--overwrite").code == 0
    assert Path("seg.zarr.floodem/notes.txt").read_text(encoding="utf-8") == "mine"
    assert segment("em.npy", "seg.zarr", "--pad", "0.1").code == 0
    assert leftovers(Path()) == []


def test_a_stopped_overwrite_says_how_to_go_on_and_does():
    assert segment("em.npy", "seg.zarr").code == 0
    whole = results("seg.zarr", "seg.zarr.floodem")
    with signals_at(300):
        ended = segment("em.npy", "seg.zarr", "--overwrite")
    assert ended.code == STOPPED
    assert "run the same command again without --overwrite to go on" in ended.err
    with signals_at(1):  # 299 calls were done before
        assert segment("em.npy", "seg.zarr").code == STOPPED
    assert segment("em.npy", "seg.zarr").code == 0
    assert results("seg.zarr", "seg.zarr.floodem") == whole
