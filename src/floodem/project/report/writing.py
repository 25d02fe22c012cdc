"""From evaluations to a page: scores and addresses in, one HTML file and a scene out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from floodem.errors import (
    DependencyError,
    DestinationExistsError,
    OptionError,
    StoppedError,
    StorageError,
)
from floodem.evaluation import Evaluation
from floodem.files import write_text
from floodem.geometry import VoxelSize, Zyx
from floodem.progress import Progress, ProgressListener
from floodem.project.report.contents import Contents, Panel, Pictured
from floodem.project.report.drawing import Scale, draw_slice, grey_levels, png, take_slice
from floodem.project.report.opened import Source, Volumes, open_volumes, uri_of
from floodem.project.report.page import GENERATOR, report_page
from floodem.project.report.places import (
    CutOut,
    Place,
    choose_places,
    contact,
    crossing,
    cut_box,
    highlight,
    read_cut_out,
)
from floodem.project.report.scene import (
    PlacesScene,
    Seen,
    growing_scene,
    require_scene_place,
    scene_folder,
)
from floodem.viewer.layers import unique_names
from floodem.viewer.serving.pages import client_folder
from floodem.volumes.servers.addresses import without_secrets

PLACES = 10
"""How many mergers and how many splits are shown."""

_LOOKS, _OFF_CENTRE = 3, 5
"""How often a place is looked at from a better middle, and from which part of the edge on."""

_HEAD_BYTES = 4096
"""Of a page, in which its generator stands."""


def write_report(
    path: str | Path,
    *,
    evaluations: Sequence[Evaluation],
    image: Source | None = None,
    names: Sequence[str] | None = None,
    segmentations: Sequence[Source] | None = None,
    truth: Source | None = None,
    voxel_size: VoxelSize | None = None,
    title: str | None = None,
    places: int = PLACES,
    has_viewer: bool = True,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Write one page with scores, and with pictures of the worst mergers and splits.

    The page needs nothing but itself. Beside it lies the scene that its links open, in
    ``NAME.scene``. Only small boxes around the places are read.

    Parameters
    ----------
    path
        Of the page, ``NAME.html``. A page that floodem wrote is replaced.
    evaluations
        Of one segmentation, or of several against the same truth, to be shown side by side.
    image
        What lies under the labels in the pictures, in the same frame as the truth.
    names
        What the segmentations are called; by default the last parts of their addresses.
    segmentations, truth
        Where the volumes are that were scored; by default where the evaluations say.
    voxel_size
        In nanometres; by default what truth, image or a segmentation states. Without any
        scale bars are in voxels.
    places
        How many mergers and how many splits to show at most.
    has_viewer
        Whether to make the scene.
    overwrite
        Replace what floodem did not write, too.
    progress, notice, should_stop
        Told of the places, and of what is otherwise than one may think; asked between places.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    OptionError
        When there is no evaluation, they are of different truths, or names do not fit.
    GeometryError
        When the image has voxels of another size.
    DestinationExistsError
        When something else is at the path, or in the scene's place.
    StoppedError
        When it was told to stop; what was there before stays.
    FloodemError
        When a volume cannot be opened or read, or the page not be written.
    """
    path = Path(path)
    require_comparable(evaluations, names=names)
    require_report_place(path, overwrite=overwrite, has_viewer=has_viewer)
    labels = segmentations or [one.segmentation for one in evaluations]
    truth = evaluations[0].truth if truth is None else truth
    called = list(names or unique_names([without_secrets(uri_of(one)) for one in labels]))
    remarks = _remarks(evaluations)

    def told(sentence: str) -> None:
        remarks.append(sentence)
        if notice is not None:
            notice(sentence)

    scene = scene_folder(path)
    chosen = choose_places(evaluations, limit=places)
    with ExitStack() as opened:
        volumes = open_volumes(
            opened, truth=truth, segmentations=labels, image=image, voxel_size=voxel_size
        )
        growing = None
        if chosen and has_viewer and _has_client(told):
            growing = opened.enter_context(
                growing_scene(scene, names=called, voxel_size=volumes.voxel_size, title=path.name)
            )
        pictured = []
        for done, place in enumerate(chosen):
            if should_stop():
                raise StoppedError("stopped before the report was written: run it again")
            if progress is not None:
                progress(Progress(stage="places", done=done, total=len(chosen), unit="places"))
            pictured.append(look_at(place, volumes, scene=growing))
    first = unique_names([without_secrets(uri_of(truth))])[0]
    contents = Contents(
        path=path,
        title=title or f"{', '.join(called)} against {first}",
        evaluations=evaluations,
        names=called,
        addresses=[uri_of(one) for one in labels],
        truth=uri_of(truth),
        image=None if image is None else uri_of(image),
        voxel_size=volumes.voxel_size,
        pictured=pictured,
        scene=None if growing is None else scene,
        remarks=remarks,
    )
    write_text(path, report_page(contents))
    return path


def look_at(place: Place, volumes: Volumes, *, scene: PlacesScene | None = None) -> Pictured:
    """Read what lies around a place, draw it for each segmentation, and put it into a scene."""
    size = volumes.voxel_size
    cut, at = _cut_around(place, volumes)
    shown = [highlight(place, cut, number=n) for n in range(len(volumes.segmentations))]
    at = crossing(shown[place.owner], at, voxel_size=size)
    scale = Scale.of(cut.box.shape, size)
    grey = None if cut.image is None else grey_levels(cut.image)
    panels = []
    for number, one in enumerate(shown):
        row = []
        for axis, index in enumerate(at):
            taken = take_slice(cut, one, grey=grey, number=number, axis=axis, index=index)
            pixels = draw_slice(taken, scale)
            row.append(
                Panel(
                    axis=axis,
                    index=index + cut.box.start[axis],
                    width=pixels.shape[1],
                    height=pixels.shape[0],
                    png=png(pixels, scale),
                )
            )
        panels.append(tuple(row))
    z, y, x = (index + start for index, start in zip(at, cut.box.start, strict=True))
    seen = Seen(
        place=place, box=cut.box, segments=tuple(one.segments for one in shown), position=(z, y, x)
    )
    return Pictured(
        seen=seen,
        panels=tuple(panels),
        has_both=bool(shown[place.owner].first.any() and shown[place.owner].second.any()),
        link_end=None if scene is None else scene.add(seen, cut),
    )


def _cut_around(place: Place, volumes: Volumes) -> tuple[CutOut, Zyx]:
    """Return the voxels around a place, and where in them both parts lie close together.

    Parts that come near each other nowhere around are shown where the second one is.
    """
    size, frame = volumes.voxel_size, place.scored
    middle = place.middle
    for _ in range(_LOOKS):
        cut = read_cut_out(cut_box(middle, frame=frame, voxel_size=size), volumes)
        start = cut.box.start
        found = contact(highlight(place, cut, number=place.owner), voxel_size=size)
        if found is not None:
            z, y, x = (at + first for at, first in zip(found, start, strict=True))
            target = (z, y, x)
        else:
            target = place.mistake.largest[1].position or middle
        moved = cut_box(target, frame=frame, voxel_size=size)
        is_central = all(
            abs(new - old) <= edge // _OFF_CENTRE
            for new, old, edge in zip(moved.start, start, cut.box.shape, strict=True)
        )
        if is_central:
            break
        middle = target
    z, y, x = (
        min(max(at - first, 0), edge - 1)
        for at, first, edge in zip(target, start, cut.box.shape, strict=True)
    )
    return cut, (z, y, x)


def _has_client(told: Callable[[str], None]) -> bool:
    try:
        client_folder()
    except DependencyError as error:
        told(f"places do not open in the viewer: {error}")
        return False
    return True


def require_comparable(evaluations: Sequence[Evaluation], *, names: Sequence[str] | None) -> None:
    """Refuse evaluations that do not stand side by side.

    Raises
    ------
    OptionError
        When there is none, they are of different truths, or names do not fit.
    """
    if not evaluations:
        raise OptionError("a report needs the scores of at least one segmentation")
    first = evaluations[0]
    other = next((one for one in evaluations if one.truth != first.truth), None)
    if other is not None:
        raise OptionError(
            f"{first.segmentation} was scored against {first.truth} and {other.segmentation} "
            f"against {other.truth}: score both against the same truth"
        )
    if names is not None and len({*names}) != len(evaluations):
        raise OptionError(
            f"{len({*names})} different names are given for {len(evaluations)} segmentations: "
            "give one for each"
        )


def require_report_place(path: Path, *, overwrite: bool = False, has_viewer: bool = True) -> None:
    """Refuse a path at which no page may be written; ask before long work.

    Raises
    ------
    OptionError
        When its name does not end in ``.html`` or ``.htm``.
    StorageError
        When there is no folder for it.
    DestinationExistsError
        When something that floodem did not write is there, or in the place of the scene.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise OptionError(f"the report {str(path)!r} is no name of a page: end it in .html")
    if not path.absolute().parent.is_dir():
        raise StorageError(f"there is no folder for {path}: make it first")
    if has_viewer:
        require_scene_place(scene_folder(path), overwrite=overwrite)
    if path.exists() or path.is_symlink():
        is_ours = path.is_file() and (overwrite or is_report(path))
        if not is_ours:
            raise DestinationExistsError(
                f"{path} is there already, and is no report of floodem: choose another name"
                + ("" if path.is_dir() else ", or replace it with --overwrite")
            )


def is_report(path: Path) -> bool:
    """Tell whether a file is a page that `write_report` wrote."""
    try:
        with path.open("rb") as handle:
            head = handle.read(_HEAD_BYTES)
    except OSError:
        return False
    return f'<meta name="generator" content="{GENERATOR}">'.encode() in head


def _remarks(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return what makes evaluations hard to compare."""
    first = evaluations[0]
    remarks = []
    if any(one.box != first.box or one.ignore != first.ignore for one in evaluations):
        remarks.append(
            "The segmentations were not scored over the same voxels, so that their numbers do not "
            "compare well: score them with the same --box, --border and --ignore."
        )
    return remarks
