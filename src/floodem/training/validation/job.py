"""What a validating process is asked, and how it answers: both are JSON files in the run folder.

In the process: one model file and the address of held-out data come in, a flood
and its scores go out. Nothing here knows of the training that goes on meanwhile.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.counting import counted
from floodem.errors import FloodemError, LabelError, VolumeFormatError
from floodem.files import storage_error, write_text
from floodem.geometry import Box
from floodem.training.validation.choice import ValidationFailure
from floodem.training.validation.score import ValidationScore

LABELS_DATASET = "labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationJob:
    """One flood of held-out data.

    Attributes
    ----------
    step, hours
        Step of the weights, and training time up to there.
    network
        Name of the network as the configuration has it; a model file alone cannot load
        code of another package.
    model
        Model file.
    image, labels
        Addresses.
    box
        Part to segment, in the image's frame; None for all of it.
    image_mean, image_stddev
        Grey levels are (v - mean) / stddev.
    segmentation
        HDF5 file for the result.
    outcome
        Where the answer goes, written in one piece when all is done.
    device
        Name, see `floodem.network.device`.
    threads
        For computations on a CPU.
    min_segment_size, max_calls
        Of the flood.
    border
        Voxels at each face that are not scored, z, y, x.
    """

    step: int
    hours: float
    network: str
    model: str
    image: str
    labels: str
    box: str | None
    image_mean: float
    image_stddev: float
    segmentation: str
    outcome: str
    device: str
    threads: int
    min_segment_size: int
    max_calls: int | None
    border: list[int]

    def save(self, path: Path) -> None:
        """Write the job as JSON."""
        write_text(path, json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False))

    @classmethod
    def load(cls, path: Path) -> ValidationJob:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def flood_and_score(job: ValidationJob) -> ValidationScore:
    """Segment the held-out data and hold the result against the truth.

    Raises
    ------
    LabelError
        When no flood became a segment: the score of nothing is no score.
    FloodemError
        Whatever `segment` and `evaluate` refuse.
    """
    from floodem.evaluation import evaluate
    from floodem.flooding.options import FloodOptions
    from floodem.flooding.request import SegmentRequest
    from floodem.flooding.segment import segment
    from floodem.network.model_file import Model, load_model
    from floodem.network.registry import register_network
    from floodem.volumes import open_volume

    began = time.monotonic()
    register_network(job.network)
    model = load_model(job.model)
    description = dataclasses.replace(
        model.description, image_mean=job.image_mean, image_stddev=job.image_stddev
    )
    made = segment(
        job.image,
        f"{job.segmentation}@{LABELS_DATASET}",
        model=Model(description, model.network),
        request=SegmentRequest(
            options=FloodOptions(min_segment_size=job.min_segment_size, max_calls=job.max_calls),
            box=None if job.box is None else Box.parse(job.box),
            device=job.device,
            overwrite=True,
        ),
    )
    calls = int(made.summary["counters"]["network_calls"])
    if calls == 0:
        raise LabelError(
            f"validation.box {job.box} (z,y,x) has no place where a flood could begin: hold out a "
            "larger box"
        )
    if made.segments == 0:
        raise LabelError(
            f"{counted(calls, 'network call')} made no segment of at least "
            f"{job.min_segment_size} voxels: "
            "the network does not follow objects yet, or they are smaller than "
            "validation.min_segment_size"
        )
    with made.open() as segmentation, open_volume(job.labels) as truth:
        z, y, x = job.border
        found = evaluate(segmentation, truth, box=made.box, border=(z, y, x), worst=0)
    return ValidationScore(
        step=job.step,
        hours=job.hours,
        adapted_rand_error=found.all_truth.adapted_rand_error,
        rand_precision=found.all_truth.rand_precision,
        rand_recall=found.all_truth.rand_recall,
        voi_split_bits=found.all_truth.voi_split_bits,
        voi_merge_bits=found.all_truth.voi_merge_bits,
        fill=found.coverage,
        segments=made.segments,
        network_calls=calls,
        seconds=time.monotonic() - began,
    )


def write_outcome(job: ValidationJob, outcome: ValidationScore | ValidationFailure) -> None:
    """Answer the training process."""
    write_text(Path(job.outcome), json.dumps(outcome.to_dict(), indent=2, allow_nan=False))


def read_outcome(path: Path) -> ValidationScore | ValidationFailure | None:
    """Return the answer, or None when there is none.

    Raises
    ------
    VolumeFormatError
        When the file is not what `write_outcome` writes.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error
    except ValueError as error:
        raise VolumeFormatError(f"{path} is no outcome of a validation: {error}") from error
    return outcome_from_dict(values)


def outcome_from_dict(values: Any) -> ValidationScore | ValidationFailure:
    """Rebuild a row of the validation curve from plain values.

    Raises
    ------
    VolumeFormatError
        When a value is missing, unknown or no number.
    """
    try:
        if "failure" in values:
            return ValidationFailure(
                step=int(values["step"]),
                hours=float(values["hours"]),
                reason=str(values["failure"]),
                seconds=float(values["seconds"]),
            )
        kinds = {entry.name: entry.type for entry in dataclasses.fields(ValidationScore)}
        if values.keys() != kinds.keys():
            raise KeyError(", ".join(sorted(kinds.keys() ^ values.keys())))
        numbers: dict[str, Any] = {
            name: int(value) if kinds[name] == "int" else float(value)
            for name, value in values.items()
        }
        return ValidationScore(**numbers)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise VolumeFormatError(f"a row of validation is damaged: {error!r}") from error


def remove_result(segmentation: Path) -> None:
    """Remove a result and the record beside it, as far as the system allows.

    Raises
    ------
    FloodemError
        When the file system refuses, for example because a viewer has the file open.
    """
    from floodem.flooding.segment import state_folder

    folder = state_folder(f"{segmentation}@{LABELS_DATASET}")
    try:
        if folder.exists():
            shutil.rmtree(folder)
        segmentation.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, FloodemError):
            raise
        raise storage_error("remove", segmentation, error) from error
