"""The command line under attack: commands run in process, and folders held to what they were."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bright import bright_model, bright_tubes
from floodem.cli.main import main
from floodem.flooding.predictor import Predictor
from floodem.network.model_file import save_model
from floodem.volumes import open_volume

OPTIONS = ("--model", "m.safetensors", "--device", "cpu", "--min-segment-size", "100")
"""Of every `floodem segment` here; min-segment-size suits the small tubes."""

INPUT_REFUSED, USAGE, STOPPED, INTERRUPTED = 3, 2, 4, 130


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it printed."""

    code: object
    out: str
    err: str


def floodem(*arguments) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main([str(argument) for argument in arguments])
    return Ended(stop.value.code, out.getvalue(), err.getvalue())


def segment(*arguments) -> Ended:
    return floodem("segment", *arguments, *OPTIONS)


def everything_in(folder: Path) -> dict[str, bytes | None]:
    """Every file with its bytes, every folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def require_sentence(ended: Ended, *says: str, code: int = INPUT_REFUSED) -> str:
    """Hold what a command has said, but for notes, to one line that names the matter; return it."""
    assert "Traceback" not in ended.err, ended.err
    assert ended.code == code, ended
    # what a run notices about its input it says before it floods
    lines = [line for line in ended.err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("error: ")
    for words in says:
        assert words in lines[0], lines[0]
    assert ended.out == ""
    return lines[0]


def refused(*arguments, says: tuple[str, ...], code: int = INPUT_REFUSED) -> str:
    """Run a command that must end in one sentence and leave the folder as it was."""
    before = everything_in(Path())
    sentence = require_sentence(floodem(*arguments), *says, code=code)
    assert everything_in(Path()) == before
    return sentence


def lay_out(folder: Path) -> None:
    """Put an image and a model into a folder."""
    np.save(folder / "em.npy", bright_tubes()[0])
    save_model(bright_model(), folder / "m.safetensors")


def results(destination: str, folder: str) -> dict:
    """Everything of a finished run that must not depend on how it went."""
    record = Path(folder)
    with open_volume(destination) as volume:
        labels = volume.read()
    origins = json.loads((record / "origins.json").read_text())["origins"]
    assert labels.max() == len(origins) > 0
    return {
        "labels": labels.tolist(),
        "origins": {
            label: (origin["start_zyx"], origin["iters"], origin["voxels"])
            for label, origin in origins.items()
        },
        "overlaps": json.loads((record / "overlaps.json").read_text()),
        "seeds": (record / "seeds.csv").read_text(),
        "counters": json.loads((record / "run.json").read_text())["summary"]["counters"],
        "receipts": sorted(path.name for path in (record / "receipts").iterdir()),
    }


def leftovers(folder: Path) -> list[str]:
    """Temporary files, which no command that has ended may leave."""
    return [name for name in everything_in(folder) if "partial" in name or "replaced" in name]


@contextlib.contextmanager
def signals_at(*calls: int, number: int = signal.SIGINT) -> Iterator[None]:
    """Send this process a signal at these network calls, counted from 1."""
    done = itertools.count(1)
    predict = Predictor.predict

    def predict_and_signal(self, corner, seed_logits):
        if next(done) in calls:
            signal.raise_signal(number)
        return predict(self, corner, seed_logits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "predict", predict_and_signal)
        yield
