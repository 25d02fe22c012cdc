"""Agglomeration of a segmentation of any size: labels, image and network in, a graph out.

::

    segmentation -> decision points -> scores -> GRAPH
                    (blocks)           (groups)  (one file)

The segmentation stays as it is; floodem.assembly.agglomeration.graph.applying makes a merged one
of the graph. What the stages leave lies in ``GRAPH.floodem``, so that a run that was stopped
anywhere goes on there.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Segment agglomeration".
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import floodem
from floodem.assembly.agglomeration.folder import GraphFolder
from floodem.assembly.agglomeration.graph.base import describe_base
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.graph.merging import smallest_of_components
from floodem.assembly.agglomeration.graph.writer import writing_graph
from floodem.assembly.agglomeration.points.points import DecisionPoints
from floodem.assembly.agglomeration.points.search import find_decision_points
from floodem.assembly.agglomeration.preparation import AgglomerationOptions, Prepared, prepare
from floodem.assembly.agglomeration.resegmentation.groups import group_order, score_tasks
from floodem.assembly.agglomeration.resegmentation.progress import ScoreProgress
from floodem.assembly.agglomeration.resegmentation.tasks import (
    ScoreTask,
    close_resegmenter,
    score_points_task,
    scores_from_rows,
)
from floodem.cluster import ALONE, Crew, keeping_cluster, run_tasks
from floodem.cluster.holding import holding, taking_rest
from floodem.errors import RunConflictError, StoppedError
from floodem.progress import ProgressListener
from floodem.shapes.source import LabelSource
from floodem.volumes.source import VolumeSource

_ASKED_EVERY_S = 1.0
"""How often a shard looks whether another one has found the decision points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agglomeration:
    """What a finished agglomeration has made.

    Attributes
    ----------
    graph
        The file of the segment graph.
    points
        Decision points, which are the graph's edges.
    merges
        Edges that are merges now, by the graph's rule and what people decided.
    segments
        Base segments that are in a merge, and `objects` that they become.
    calls
        Network calls of all floods.
    seconds
        Their wall time, of all workers together.
    was_finished
        Whether an earlier call had done all the work.
    """

    graph: Path
    points: int
    merges: int
    segments: int
    objects: int
    calls: int
    seconds: float
    was_finished: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "graph": str(self.graph)}


def agglomerate(
    segmentation: str | Path | LabelSource,
    image: str | Path | VolumeSource,
    graph: str | Path,
    *,
    model: str | Path,
    options: AgglomerationOptions | None = None,
    crew: Crew = ALONE,
    network: str | None = None,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Agglomeration:
    """Score which segments belong together, or go on with a run that was stopped.

    Parameters
    ----------
    segmentation
        Labels z, y, x, which stay as they are.
    image
        What was segmented, in the same frame.
    graph
        A local file for the segment graph. Beside it the folder ``GRAPH.floodem`` holds
        what is computed until then.
    model
        Model file or its name.
    crew
        Who does the work. Of several shards the last one writes the graph.
    network
        Code of another package that the model names (``PACKAGE:FACTORY``).
    overwrite
        Begin again; what people have decided in the graph is lost.
    notice
        Called with each sentence that a user may want to read.
    should_stop
        Asked between network calls.

    Raises
    ------
    StoppedError
        When `should_stop` said so; the same call goes on from there.
    ShardDoneError
        When this shard's part is done and others are still at theirs.
    DestinationExistsError
        When something is at `graph` that no such run has made, or that this one reads.
    RunConflictError
        When another process works there, or the run there had other options.
    FloodemError
        When an input is refused; nothing was written then.
    """
    from floodem.network.model_file import load_model

    say = notice or _ignore
    folder = GraphFolder(graph)
    options = AgglomerationOptions() if options is None else options
    prepared = prepare(
        segmentation
        if isinstance(segmentation, LabelSource)
        else LabelSource(uri=str(segmentation)),
        image if isinstance(image, VolumeSource) else VolumeSource(uri=str(image)),
        model=str(model),
        loaded=load_model(model),
        network=network,
        options=options,
    )
    common = prepared.common
    folder.require_apart(
        {
            "segmentation": common.segmentation.uri,
            "image": common.image.uri,
            "model": common.model,
        }
    )
    folder.require_possible(overwrite=overwrite)
    _tell_of_coverage(options, common=common, say=say)
    with (
        holding(folder.path, crew=crew, what=str(folder.graph), should_stop=should_stop) as hold,
        keeping_cluster(crew),
    ):
        if overwrite:
            folder.clear(crew=crew)
        run = _Run(
            prepared=prepared,
            options=options,
            folder=folder,
            crew=crew,
            progress=progress,
            notice=say,
            should_stop=lambda: should_stop() or hold.is_lost(),
        )
        finished = folder.begin(prepared.identity, overwrite=overwrite)
        return run.make() if finished is None else run.again(finished)


def _tell_of_coverage(
    options: AgglomerationOptions, *, common: ScoreTask, say: Callable[[str], None]
) -> None:
    """Say so where second floods are left out that the rule would ask for."""
    asked, recovered = options.rule.coverage, common.options.recovery_fraction
    if common.options.terminate_early and asked < recovered:
        say(
            f"where the first flood covers less than {recovered:g} of a segment there is no second "
            f"one, so that a rule with coverage {asked:g} makes no more merges than one with "
            f"{recovered:g}: --both-sides (both_sides) floods both"
        )


def _ignore(sentence: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run, from its decision points to its graph."""

    prepared: Prepared
    options: AgglomerationOptions
    folder: GraphFolder
    crew: Crew
    progress: ProgressListener | None
    notice: Callable[[str], None]
    should_stop: Callable[[], bool]

    def make(self) -> Agglomeration:
        """Do the stages that are left."""
        points = self.points()
        if not len(points):
            self.notice(
                "no two segments come within "
                f"{self.options.points.max_distance_nm:g} nm of each other: the graph has no edges"
            )
        results = self.scores(points)
        with taking_rest(
            self.folder.receipts("rest"),
            crew=self.crew,
            what=str(self.folder.graph),
            should_stop=self.should_stop,
        ):
            header = describe_base(
                self.prepared.common.segmentation,
                voxel_size=self.prepared.voxel_size,
                about={"floodem": floodem.__version__, **self.prepared.about},
            )
            order = group_order(points)
            with writing_graph(
                self.folder.graph, header=header, rule=self.options.rule, overwrite=True
            ) as writer:
                writer.add(points.rows(order), scores_from_rows(results))
            counts = {
                "calls": sum(result["calls"] for result in results),
                "seconds": round(sum(result["seconds"] for result in results), 3),
            }
            self.folder.finish(self.prepared.identity, counts=counts)
        return self.summary(counts, was_finished=False)

    def again(self, counts: Mapping[str, Any]) -> Agglomeration:
        """Return what an earlier call has made; its graph may have another rule by now."""
        with SegmentGraph.open(self.folder.graph) as opened:
            kept = opened.rule
        if self.options.rule != kept:
            self.notice(
                f"{self.folder.graph} keeps its rule ({kept}): change it with `floodem merges`, "
                "which floods nothing"
            )
        return self.summary(counts, was_finished=True)

    def points(self) -> DecisionPoints:
        """Find the decision points; of several shards one does it and the others wait.

        Finding them takes seconds where scoring takes hours, and no point can be scored before
        all blocks were looked at.
        """
        alone = replace(self.crew, shard=None)
        has_waited = False
        while True:
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(
                        holding(
                            self.folder.path / "finding",
                            crew=alone,
                            what=str(self.folder.graph),
                            should_stop=self.should_stop,
                        )
                    )
                except RunConflictError:
                    if self.crew.shard is None:
                        raise
                    if not has_waited:
                        self.notice("waiting for another shard, which finds the decision points")
                    has_waited = True
                    self._wait()
                    continue
                return find_decision_points(
                    self.prepared.common.segmentation,
                    work=str(self.folder.path),
                    voxel_size=self.prepared.voxel_size,
                    options=self.prepared.points,
                    box=self.prepared.box,
                    block=self.options.block,
                    crew=alone,
                    progress=self.progress,
                    should_stop=self.should_stop,
                )

    def _wait(self) -> None:
        if self.should_stop():
            raise StoppedError(
                "stopped while another shard finds decision points: run the same command again"
            )
        time.sleep(_ASKED_EVERY_S)

    def scores(self, points: DecisionPoints) -> list[dict[str, Any]]:
        """Score all points, in the order of `group_order`."""
        listener = None if self.progress is None else ScoreProgress(len(points), self.progress)
        try:
            return run_tasks(
                score_points_task,
                score_tasks(points, common=self.prepared.common),
                receipts=self.folder.receipts("scores"),
                identity=self.prepared.identity,
                crew=self.crew,
                progress=None if listener is None else listener.done,
                reported=None if listener is None else listener.reported,
                ended=None if listener is None else listener.ended,
                should_stop=self.should_stop,
                keeps_going=True,
            )
        finally:
            close_resegmenter()

    def summary(self, counts: Mapping[str, Any], *, was_finished: bool) -> Agglomeration:
        """Return what the graph holds."""
        with SegmentGraph.open(self.folder.graph) as opened:
            edges = opened.edges()
            old, new = smallest_of_components(*edges.joined())
        return Agglomeration(
            graph=self.folder.graph,
            points=len(edges),
            merges=int(np.count_nonzero(edges.accepted)) + len(edges.other_merges),
            segments=len(old),
            objects=len(np.unique(new)),
            calls=int(counts["calls"]),
            seconds=float(counts["seconds"]),
            was_finished=was_finished,
        )
