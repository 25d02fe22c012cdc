"""A label volume made by tasks: a destination and functions of blocks in, a finished volume out.

What every job has in common that writes labels block by block, wherever they come from:
who works there, what is done already, the empty volume, its levels, and its place.

::

    opening -> stage, stage, ... -> write (labels -> level-1 -> level-2 -> ... -> in place)

Everything of the run lies in ``DST.floodem`` (floodem.assembly.run_record).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from floodem.assembly.blocks import BlockPlan
from floodem.assembly.destination import LabelDestination
from floodem.assembly.output_levels import level_tasks, write_level_task
from floodem.assembly.place import Place
from floodem.assembly.placing import finish
from floodem.assembly.run_record import RunRecord, is_taken
from floodem.cluster import Crew, Task, keeping_cluster, run_tasks
from floodem.cluster.holding import holding, taking_rest
from floodem.cluster.task import TaskFunction
from floodem.files import remove_partial_files
from floodem.flooding.run_folder import RunStatus
from floodem.geometry import VoxelSize
from floodem.progress import Progress, ProgressListener
from floodem.volumes.conversion.destination import final_place


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRun:
    """One run, held by this process, with what its stages need.

    Attributes
    ----------
    record
        Its run.json, which states it.
    destination
        Where the labels go.
    identity
        What decides the result, as JSON values.
    crew
        Who does the tasks.
    progress, notice, should_stop
        Of whoever asked for it.
    """

    record: RunRecord
    destination: LabelDestination
    identity: Mapping[str, Any]
    crew: Crew
    progress: ProgressListener | None
    notice: Callable[[str], None]
    should_stop: Callable[[], bool]

    @property
    def work(self) -> str:
        """The run's folder, on a disk or on a server."""
        return self.record.address

    def summary(self) -> dict[str, Any] | None:
        """Return the summary of a run that an earlier call has finished, or None."""
        return self.record.summary()

    def receipts(self, stage: str) -> str:
        """Return where the receipts of a stage are."""
        return f"{self.work.rstrip('/')}/receipts/{stage}"

    def stage(
        self,
        name: str,
        function: TaskFunction,
        tasks: Sequence[Task],
        *,
        says: str,
        unit: str = "blocks",
    ) -> list[dict[str, Any]]:
        """Do the tasks of a stage that are not done yet, and return the results of all.

        Parameters
        ----------
        name
            Of the stage's receipts.
        says, unit
            What progress calls the stage, and what it counts.

        Raises
        ------
        FloodemError
            See `floodem.cluster.run_tasks`.
        """

        def tell(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(Progress(stage=says, done=done, total=total, unit=unit))

        return run_tasks(
            function,
            tasks,
            receipts=self.receipts(name),
            identity=self.identity,
            crew=self.crew,
            progress=tell,
            should_stop=self.should_stop,
        )

    def once(self, name: str, function: TaskFunction, argument: Any) -> dict[str, Any]:
        """Do something once, in this process, and return its result."""
        done = run_tasks(
            function,
            [Task(key="all", argument=argument)],
            receipts=self.receipts(name),
            identity=self.identity,
            should_stop=self.should_stop,
        )
        return done[0]

    @contextlib.contextmanager
    def resting(self) -> Iterator[LabelRun]:
        """Let one of several shards go on with what follows the work they shared.

        Raises
        ------
        ShardDoneError
            When another one does.
        """
        with taking_rest(
            self.receipts("rest"),
            crew=self.crew,
            what=self.destination.uri,
            should_stop=self.should_stop,
        ) as hold:
            yield replace(
                self, crew=hold.crew, should_stop=lambda: self.should_stop() or hold.is_lost()
            )

    def write(
        self, function: TaskFunction, tasks: Sequence[Task], *, says: str = "writing labels"
    ) -> list[dict[str, Any]]:
        """Fill the volume, make its coarser levels, and put it into its place.

        Parameters
        ----------
        function
            Writes whole cores of ``destination.plan`` to ``destination.target``, which is
            there by then; a task may be repeated.

        Returns
        -------
        list of dict
            What the tasks returned.

        Raises
        ------
        FloodemError
            When the disk or the server refuses, or the run was told to stop.
        """
        destination = self.destination
        if destination.place() is Place.PLACED and not is_taken(destination.uri):
            self.record.forget_result()
        destination.create()
        self.record.state(RunStatus.WRITING)
        written = self.stage("labels", function, tasks, says=says)
        for level in range(1, 1 + len(destination.factors)):
            self.stage(
                f"level-{level}",
                write_level_task,
                level_tasks(destination, level),
                says=f"writing level {level}",
            )
        finish(destination, progress=self.progress, should_stop=self.should_stop)
        return written

    def done(self, summary: Mapping[str, Any]) -> None:
        """Say that the run is finished, and what it has made."""
        self.record.state(RunStatus.DONE, summary=summary)


@contextlib.contextmanager
def label_run(
    uri: str,
    *,
    plan: BlockPlan,
    voxel_size: VoxelSize | None,
    identity: Mapping[str, Any],
    about: Mapping[str, Any],
    overwrite: bool,
    crew: Crew,
    progress: ProgressListener | None,
    notice: Callable[[str], None],
    should_stop: Callable[[], bool],
    levels: int | Literal["auto"] = "auto",
) -> Iterator[LabelRun]:
    """Hold a destination, and begin a run there or find the one to go on with.

    Parameters
    ----------
    uri
        Where the labels go.
    plan
        How the volume is cut: into cores that tasks write.
    identity
        What decides the result; a run with another one is refused.
    about
        What a reader of run.json wants to know besides.
    overwrite
        Begin again, and replace what is there.
    levels
        How many coarser levels; see `LabelDestination.choose`.

    Raises
    ------
    RunConflictError
        When another process works there, or the run there was begun with something else.
    DestinationExistsError
        When something is at the destination that no run of floodem has made.
    FloodemError
        When such labels cannot be written there.
    """
    record = RunRecord(uri)
    destination = LabelDestination.choose(
        uri, plan=plan, voxel_size=voxel_size, levels=levels, overwrite=overwrite
    )
    destination.require_possible()
    with (
        holding(
            record.address,
            crew=crew,
            what=record.destination,
            should_stop=should_stop,
            notice=notice,
        ) as hold,
        keeping_cluster(crew),
    ):
        if overwrite:
            record.clear(crew=crew)
        _remove_probes(destination, crew=crew)
        begun = record.begin(
            identity,
            plan={**destination.to_json(), "cut": plan.to_json()},
            about={**about, "destination": uri},
            replaces=overwrite,
        )
        yield LabelRun(
            record=record,
            destination=replace(destination, replaces=bool(begun["replaces"])),
            identity=identity,
            crew=crew,
            progress=progress,
            notice=notice,
            should_stop=lambda: should_stop() or hold.is_lost(),
        )


def _remove_probes(destination: LabelDestination, *, crew: Crew) -> None:
    """Remove what killed processes left beside the destination when they tried it.

    Other shards may be trying it just now.
    """
    if crew.shard is None and not destination.location.is_remote:
        place = final_place(destination.location)
        remove_partial_files(place.parent, of=place.name)
