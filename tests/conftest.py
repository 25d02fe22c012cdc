"""What every test may use: the shared data, and one thread per computation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data: FLOODEM_DATA, or ../shared/data beside the repository."""
    named = os.environ.get("FLOODEM_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}: set FLOODEM_DATA to a folder with the shared data")
    return folder
