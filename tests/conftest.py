"""What every test may use: the shared data, and shapes checked at every call."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import config, install_import_hook

from typechecker import modules_with_shapes

# Before floodem is imported: from here on arrays are held against their annotated shapes.
install_import_hook(modules_with_shapes(), "typechecker.check")

# Tests read what the processes they start print; a test of a console sets its encoding itself.
os.environ.pop("PYTHONIOENCODING", None)

# A suite started in the background inherits that Ctrl-C is ignored, and so would the commands
# that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data: FLOODEM_DATA, or ../shared/data beside the repository."""
    named = os.environ.get("FLOODEM_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}: set FLOODEM_DATA to a folder with the shared data")
    return folder


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Let wrong shapes through, for tests of what floodem itself says about them."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
