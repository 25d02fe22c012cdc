"""Chunks of the viewer with eight clients at once, and the time to its first picture.

Each chunk of the finest level is asked for once by one of eight clients, which live in a process
of their own and keep their connections, as browsers do. Cold means that the server keeps nothing
yet (files are in the system's cache), warm that it has read all of it. Beside them stand two
floors: the same chunk read from the open volume by one thread, without any server, and a static
file of the same size from the same server.
"""

from __future__ import annotations

import http.client
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from floodem.geometry import Box, VoxelSize
from floodem.viewer import view
from floodem.viewer.layers import Kind
from floodem.viewer.serving import Site
from floodem.viewer.serving.blocks import Cache
from floodem.viewer.serving.levels import Level, make_levels
from floodem.volumes import Volume, convert, open_volume
from floodem.volumes.volume import Kind as ValueKind

CLIENTS = 8
ROUNDS = 8
PICTURES = 3
DATA = Path(
    os.environ.get("FLOODEM_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)
FIB25 = VoxelSize(10, 10, 10)
SNEMI3D = VoxelSize(30, 6, 6)


def run() -> None:
    """Print percentiles of latency, and how long a browser takes."""
    if not DATA.is_dir():
        print(f"no data at {DATA}: set FLOODEM_DATA to a folder with the shared data")
        return
    print(f"{CLIENTS} clients; milliseconds at the 50th and 95th percentile")
    print(f"{'':22} {'chunk':>9} {'alone':>13} {'static':>13} {'cold':>13} {'warm':>13}")
    with tempfile.TemporaryDirectory() as folder, _clients() as clients:
        for name, address, kind in _sources(Path(folder)):
            with open_volume(address) as volume:
                print(f"{name:22} {_row(volume, kind, clients)}")
        _print_first_pictures(Path(folder))


def _sources(folder: Path) -> Iterator[tuple[str, str, Kind]]:
    image = str(DATA / "fib25" / "grayscale_maps.h5")
    zarr = str(folder / "fib25.zarr")
    convert(image, zarr, voxel_size=FIB25, chunks=(64, 64, 64))
    yield "fib25 hdf5", image, Kind.IMAGE
    yield "fib25 hdf5 labels", str(DATA / "fib25" / "groundtruth.h5"), Kind.SEGMENTATION
    yield "fib25 zarr", zarr, Kind.IMAGE
    yield "snemi3d png", str(DATA / "snemi3d" / "images"), Kind.IMAGE


def _clients() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _row(volume: Volume, kind: Kind, clients: ProcessPoolExecutor) -> str:
    values = ValueKind.IMAGE if kind is Kind.IMAGE else ValueKind.LABELS
    level = make_levels(volume, kind=values, voxel_size=None, cache=Cache(), owner="a")[0]
    boxes = list(_chunks(level))
    alone = [_seconds(volume, box) for box in boxes]
    cold, warm = [], []
    for _ in range(ROUNDS):
        # Each round begins with a server that has read nothing.
        with Site.start() as site:
            address = site.serve_volume(volume, kind=kind, name="a").removeprefix("precomputed://")
            wanted = [f"{address}/{level.key}/{_name(box)}" for box in boxes]
            cold += clients.submit(ask_all, wanted, CLIENTS).result()
            warm += clients.submit(ask_all, wanted, CLIENTS).result()
    size = level.volume.read(boxes[0]).size * (1 if kind is Kind.IMAGE else 4)
    static = _static(size, len(boxes), clients)
    cells = "".join(f"{_percentiles(found):>14}" for found in (alone, static, cold, warm))
    return f"{size / 1e3:7,.0f} KB{cells}"


def _chunks(level: Level) -> Iterator[Box]:
    box = level.volume.box
    axes = zip(box.start, box.stop, level.chunk, strict=True)
    for start in itertools.product(*(range(a, b, edge) for a, b, edge in axes)):
        found = Box.from_shape(level.chunk, start=start).intersection(box)
        assert found is not None
        yield found


def _name(box: Box) -> str:
    return "_".join(f"{a}-{b}" for a, b in list(zip(box.start, box.stop, strict=True))[::-1])


def _seconds(volume: Volume, box: Box) -> float:
    begin = time.perf_counter()
    volume.read(box)
    return time.perf_counter() - begin


def _static(size: int, count: int, clients: ProcessPoolExecutor) -> list[float]:
    """Ask for files of noise, which are not compressed on the way."""
    noise = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, Site.start() as site:
        for number in range(count):
            Path(folder, str(number)).write_bytes(noise.bytes(size))
        address = site.serve_folder(Path(folder))
        wanted = [f"{address}/{number}" for number in range(count)] * ROUNDS
        return clients.submit(ask_all, wanted, CLIENTS).result()


def ask_all(addresses: Sequence[str], clients: int) -> list[float]:
    """Ask for each address once, so many at a time; return the seconds of each."""

    def work(mine: Sequence[str]) -> list[float]:
        place = urlsplit(addresses[0])
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        seconds = []
        for address in mine:
            begin = time.perf_counter()
            connection.request("GET", urlsplit(address).path, headers={"Accept-Encoding": "gzip"})
            reply = connection.getresponse()
            assert reply.status == http.HTTPStatus.OK, reply.status
            reply.read()
            seconds.append(time.perf_counter() - begin)
        connection.close()
        return seconds

    with ThreadPoolExecutor(clients) as pool:
        parts = [addresses[number::clients] for number in range(min(clients, len(addresses)))]
        return [one for seconds in pool.map(work, parts) for one in seconds]


def _percentiles(seconds: Sequence[float]) -> str:
    middle, high = np.percentile(np.asarray(seconds) * 1e3, [50, 95])
    return f"{middle:6.1f} {high:6.1f}"


def _print_first_pictures(folder: Path) -> None:
    """Print how long it takes from the call of `view`, and from opening the page, to a picture."""
    from browser import running_chromium
    from floodem.errors import DependencyError

    cases = {
        "fib25 image": ([str(folder / "fib25.zarr")], FIB25),
        "fib25 with labels": (
            [f"image={folder / 'fib25.zarr'}", f"segmentation={DATA / 'fib25/groundtruth.h5'}"],
            FIB25,
        ),
        "snemi3d image": ([str(DATA / "snemi3d" / "images")], SNEMI3D),
    }
    is_drawn = "window.viewer?.layerManager?.managedLayers.length && window.viewer.isReady()"
    print("\nseconds to the first picture, all that is in view drawn (software renderer)")
    try:
        with running_chromium() as browser:
            for name, (sources, size) in cases.items():
                served, drawn = [], []
                for _ in range(PICTURES):
                    begin = time.perf_counter()
                    with view(*sources, voxel_size=size) as viewer:
                        served.append(time.perf_counter() - begin)
                        browser.open(viewer.address, size_wh=(1400, 900)).wait_until(is_drawn)
                        drawn.append(time.perf_counter() - begin)
                print(f"{name:22} view() {np.median(served):5.2f}, drawn {np.median(drawn):5.2f}")
    except DependencyError as error:
        print(f"not measured: {error}")
