"""What every test may use: the shared data, and shapes checked at every call."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import config, install_import_hook

from servers.base import FakeServer
from servers.files import FileServer
from servers.gcs import GcsServer
from servers.s3 import S3Server
from typechecker import modules_with_shapes

# Several processes of tests share the cores; torch reads this when it is imported.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    cores = os.cpu_count() or 1
    share = max(1, cores // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(share))

# Before floodem is imported: from here on arrays are held against their annotated shapes.
install_import_hook(modules_with_shapes(), "typechecker.check")

# Tests read what the processes they start print; a test of a console sets its encoding itself.
os.environ.pop("PYTHONIOENCODING", None)

# A suite started in the background inherits that Ctrl-C is ignored, and so would the commands
# that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast a busy machine draws and runs examples says nothing about the code.
settings.register_profile("any-pace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-pace")

# The one browser of all tests; loaded behind the hook above, as it imports floodem.
pytest_plugins = ("browser",)

REPOSITORY = Path(__file__).resolve().parents[1]


LONGEST = ("test_golden.py", "test_kill.py", "test_demo.py", "test_coming_from_ffn.py")
"""Half a minute and more: begun first, so that no process is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


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


@pytest.fixture
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials and no servers but those of the tests."""
    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "STORAGE_", "FLOODEM_REMOTE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull + "/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull + "/none")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[FileServer]:
    with FileServer(tmp_path) as server:
        yield server


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        yield server


@pytest.fixture
def gs(monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsServer]:
    with GcsServer() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.host)
        # Set by floodem as well; here so that it is forgotten after the test.
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.address)
        yield server


@pytest.fixture(params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest) -> FakeServer:
    server: FakeServer = request.getfixturevalue(request.param)
    server.root = f"{request.param}://bucket"  # type: ignore[attr-defined]
    return server
