"""One block of a large volume is flooded: a task in, its labels, table and record out.

::

    masks -> image -> seeds -> (one at a time in a process: flooding) -> labels, table, record

Two tasks in two threads of a process share its device: while one floods, the other
reads, finds seeds or writes. What a block becomes depends on the image in its halo, the
network and the options, never on who floods it or how often that was interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt32, UInt64

from floodem.assembly.block_masks import BlockMasks, masks_without_image, with_image
from floodem.assembly.block_record import BlockLog, host, told, write_record
from floodem.assembly.block_store import BlockStore, SegmentTable
from floodem.assembly.blocks import Block
from floodem.assembly.sources import InitialLabels, read_image, task_model
from floodem.cluster.context import TaskContext, task_context
from floodem.errors import DeviceError, StoppedError
from floodem.flooding.request import SegmentRequest
from floodem.geometry import VoxelSize
from floodem.volumes.servers.addresses import is_remote
from floodem.volumes.servers.transport import open_store
from floodem.volumes.source import VolumeSource

if TYPE_CHECKING:
    from floodem.flooding.block import BlockFlooder
    from floodem.flooding.job import Job
    from floodem.flooding.masks import MaskRule
    from floodem.network.model_file import Model

ASKED_EVERY_S = 0.2
"""How long a stop may go unheard by a block that waits for its turn to flood."""

_flooding = threading.Lock()
"""One block of a process floods at a time: two would only slow each other on one device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodTask:
    """One block to be flooded; it can be sent to other processes.

    Attributes
    ----------
    image
        Where the image is.
    voxel_size
        Of the image, as stated; None where that is not known.
    model, model_digest
        The network's file or name, and what `Model.digest` says of it.
    request
        Options, masks, device; what it says of box, overwriting and probabilities is not
        looked at. Its masks were checked before.
    store, block
        Which block, and where its results go.
    initial
        Segments that are there already; None: those of ``request.init_segmentation``.
    network
        Code of another package that the model names, as the user gave it, or None.
    time_limit_s
        Longest flooding, in seconds, or None.
    """

    image: VolumeSource
    voxel_size: VoxelSize | None
    model: str
    model_digest: str
    request: SegmentRequest
    store: BlockStore
    block: Block
    initial: InitialLabels | None = None
    network: str | None = None
    time_limit_s: float | None = None

    def of(self, block: Block) -> FloodTask:
        """Return the same task for another block."""
        return dataclasses.replace(self, block=block)

    def initial_labels(self) -> InitialLabels | None:
        """Return where the segments are that are there already."""
        if self.initial is None and self.request.init_segmentation is not None:
            return InitialLabels(uri=str(self.request.init_segmentation))
        return self.initial

    def checkpoint(self) -> Path | None:
        """Return where the half-flooded block is kept; None where the work lies on a server."""
        if is_remote(self.store.address):
            return None
        return Path(self.store.address) / "blocks" / f"{self.block.key}.checkpoint.npz"


def flood_block_task(task: FloodTask) -> dict[str, Any]:
    """Flood one block and write its labels, table and record.

    Returns
    -------
    dict
        ``segments`` (ids 1 to n of its labels, those carried among them), ``carried``,
        ``covered`` and ``core_covered`` (voxels in a segment), ``cut_short`` (new segments
        that hit a limit), ``counters``, ``seconds`` by
        part, ``host``, ``device``, ``dtype``, ``image_sha256`` (None: the image was not
        read, because all is masked), ``notices``.

    Raises
    ------
    StoppedError
        When the run was told to stop; what was flooded is saved where the work is local.
    FloodemError
        When something is refused, or flooding takes longer than the limit.
    """
    return _Attempt(task).run()


class _Attempt:
    """One try at a block; it keeps times and the log."""

    def __init__(self, task: FloodTask) -> None:
        self.task = task
        self.context: TaskContext = task_context()
        self.objects = open_store(task.store.address)
        self.log = BlockLog(objects=self.objects, block=task.block)
        self.seconds: dict[str, float] = {}
        self.where: dict[str, str] = {"host": host()}
        self.notices: tuple[str, ...] = ()

    def run(self) -> dict[str, Any]:
        block = self.task.block
        self.log.add(f"begun on {self.where['host']}: core {block.core}, halo {block.halo}")
        try:
            result = self._flooded()
        except StoppedError as error:
            self.log.add(told(self.seconds), f"stopped: {error}")
            raise
        except Exception as error:
            self.log.add(told(self.seconds), f"failed: {type(error).__name__}: {error}")
            raise
        self.log.add(
            *(f"note: {notice}" for notice in self.notices),
            "computed on " + ", ".join(self.where.values()),
            f"seconds: {told(self.seconds)}",
            f"counters: {told(result['counters'])}",
            f"done: {result['segments']} segments, {result['carried']} of them carried",
        )
        self._forget_checkpoint()
        return result

    def _flooded(self) -> dict[str, Any]:
        task, block = self.task, self.task.block
        if task.network is not None:
            from floodem.network.registry import register_network

            register_network(task.network)
        model = task_model(task.model, task.model_digest)
        voxel_size = task.voxel_size or model.description.voxel_size
        with self._part("masks"):
            masks = masks_without_image(task.request, box=block.halo, voxel_size=voxel_size)
            initial, carried = self._initial()
        if masks.leave_no_seed(model.description.fov):
            labels = np.zeros(block.halo.shape, np.uint32) if initial is None else initial
            return self._written(labels, carried=carried, flooder=None, image_sha256=None)
        job = self._job(model, masks=masks, initial=initial, voxel_size=voxel_size)
        flooder = self._flooder(job)
        image_sha256 = job.identity["image"]["sha256"]
        return self._written(
            flooder.canvas.segmentation,
            carried=carried,
            flooder=flooder,
            image_sha256=image_sha256,
        )

    def _initial(
        self,
    ) -> tuple[UInt32[np.ndarray, "z y x"] | None, UInt64[np.ndarray, "carried"]]:
        source = self.task.initial_labels()
        if source is None:
            return None, np.zeros(0, np.uint64)
        return source.read(self.task.block.halo)

    def _job(
        self,
        model: Model,
        *,
        masks: BlockMasks,
        initial: UInt32[np.ndarray, "z y x"] | None,
        voxel_size: VoxelSize,
    ) -> Job:
        from floodem.flooding.job import JobInputs, make_job, require_block_memory
        from floodem.network.device import choose_device, choose_dtype

        request, halo = self.task.request, self.task.block.halo
        device = choose_device(request.device).device
        dtype = choose_dtype(request.dtype, device)
        self.where |= {"device": device.type, "dtype": str(dtype).removeprefix("torch.")}
        self._require_same_kind()
        require_block_memory(halo, remedy="give a smaller --block or fewer workers")
        with self._part("reading"):
            raw = read_image(self.task.image, halo)
        with self._part("masks"):
            masks = with_image(masks, request, box=halo, raw=raw)
            inputs = JobInputs(
                uri=self.task.image.uri,
                box=halo,
                voxel_size=voxel_size,
                raw=raw,
                restricted=masks.restricted,
                seed_mask=masks.seed_mask,
                barrier=masks.barrier,
                initial=initial,
            )
            return make_job(
                inputs, model, options=request.options, device=device, dtype=dtype, about={}
            )

    def _flooder(self, job: Job) -> BlockFlooder:
        from floodem.assembly.block_flooding import BlockFlooding

        flooding = BlockFlooding(
            job,
            name=self.task.block.key,
            checkpoint=self.task.checkpoint(),
            save_seconds=self.task.request.checkpoint_seconds,
            time_limit_s=self.task.time_limit_s,
            context=self.context,
        )
        with self._part("seeds"):
            flooding.begin(self.log)
        self.notices = flooding.notices
        with contextlib.ExitStack() as turn:
            with self._part("waiting"):
                self._wait_for_turn()
                turn.callback(_flooding.release)
            with self._part("flooding"):
                flooding.go_on()
        return flooding.flooder

    def _wait_for_turn(self) -> None:
        while not _flooding.acquire(timeout=ASKED_EVERY_S):
            if self.context.should_stop():
                raise StoppedError("stopped before its turn: run the same command again to go on")

    def _written(
        self,
        labels: UInt32[np.ndarray, "z y x"],
        *,
        carried: UInt64[np.ndarray, "carried"],
        flooder: BlockFlooder | None,
        image_sha256: str | None,
    ) -> dict[str, Any]:
        from floodem.flooding.results import all_counters

        task, block = self.task, self.task.block
        table = segment_table(labels, block=block, carried=carried, flooder=flooder)
        with self._part("writing"):
            task.store.write(block, labels, table=table)
            if flooder is not None:
                write_record(self.objects, block, flooder=flooder)
        return {
            "segments": len(table),
            "carried": len(carried),
            "covered": int(table.voxels.sum()),
            "core_covered": int(table.core_voxels.sum()),
            "cut_short": int(np.count_nonzero(table.is_cut_short)),
            "counters": {"seeds": 0, "network_calls": 0}
            if flooder is None
            else all_counters(flooder),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "image_sha256": image_sha256,
            "notices": list(self.notices),
            "device": None,
            "dtype": None,
            **self.where,
        }

    def _require_same_kind(self) -> None:
        """Refuse a device whose numbers differ from those of the run's other blocks."""
        kind = f"{self.where['device']} in {self.where['dtype']}"
        name = "blocks/computed-on.txt"
        found = self.objects.read(name)
        if found is None and not self.objects.write(name, kind.encode(), only_new=True):
            found = self.objects.read(name)
        if found is not None and found != kind.encode():
            raise DeviceError(
                f"{self.where['host']} computes on {kind}, and other blocks of this run on "
                f"{found[:40].decode(errors='replace')}, which gives other numbers: name one with "
                "--device and --dtype, or begin again with --overwrite"
            )

    def _forget_checkpoint(self) -> None:
        checkpoint = self.task.checkpoint()
        if checkpoint is not None:
            with contextlib.suppress(OSError):  # it only takes space
                checkpoint.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _part(self, name: str) -> Iterator[None]:
        self.context.report({"part": name})
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began


def segment_table(
    labels: UInt32[np.ndarray, "z y x"],
    *,
    block: Block,
    carried: UInt64[np.ndarray, "carried"],
    flooder: BlockFlooder | None,
) -> SegmentTable:
    """Return the table of a block's labels: first what is carried, then what it flooded."""
    from floodem.flooding.results import CUT_SHORT

    origins = [] if flooder is None else list(flooder.origins.values())
    count = len(carried) + len(origins)
    starts = np.array([origin.start for origin in origins], np.int64).reshape(-1, 3)
    return SegmentTable(
        carried=carried,
        voxels=_voxels(labels, count=count),
        core_voxels=_voxels(labels[block.core.slices(origin=block.halo.start)], count=count),
        starts=starts + np.array(block.halo.start, np.int64),
        calls=np.array([origin.calls for origin in origins], np.int64),
        is_cut_short=np.array([origin.end in CUT_SHORT for origin in origins], bool),
    )


def _voxels(labels: UInt32[np.ndarray, "z y x"], *, count: int) -> Any:
    """Count voxels layer by layer: bincount widens what it is given to 64 bits."""
    total = np.zeros(count + 1, np.int64)
    for layer in labels:
        total += np.bincount(layer.reshape(-1), minlength=count + 1)
    return total[1:]


def floods_identity(task: FloodTask) -> Mapping[str, Any]:
    """Return what decides the blocks of a run besides voxels, as JSON values.

    Names of files are no part of it: a folder may be moved. Nor is the device, on which the
    first block decides (``blocks/computed-on.txt``).
    """
    request, initial = task.request, task.initial_labels()
    return {
        "model": task.model_digest,
        "options": request.options.to_json(),
        "masks": _nameless(request.masks),
        "seed_masks": _nameless(request.seed_masks),
        "barriers": _nameless(request.barriers),
        "initial": None
        if initial is None
        else {"level": initial.level, "ratio": list(initial.ratio)},
    }


def _nameless(rules: Sequence[MaskRule]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in rule.to_json().items() if name != "uri"} for rule in rules
    ]
