"""A report: what stands on the page, what its pictures show, and what it never holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from array_volume import ArrayVolume
from floodem.errors import (
    DependencyError,
    DestinationExistsError,
    GeometryError,
    OptionError,
    StoppedError,
    StorageError,
    VolumeFormatError,
)
from floodem.evaluation import evaluate
from floodem.evaluation.intervals import Interval
from floodem.evaluation.skeletons.scores import SkeletonMistake, SkeletonScores
from floodem.geometry import Box, VoxelSize
from floodem.project.report import is_report, write_report, writing
from floodem.project.report.contents import Contents
from floodem.project.report.page import report_page
from floodem.project.report.places import EDGE_VOXELS, choose_places, cut_box
from floodem.project.report.scene import MARK, scene_folder
from floodem.project.report.serving import serve_report
from floodem.project.report.text import visible
from floodem.viewer.scenes import make_scene, open_scene
from floodem.viewer.serving import Site
from floodem.volumes import open_volume
from floodem.volumes.volume import Volume
from report_cases import (
    HARD_NAME,
    MERGER,
    OFFSET,
    SHAPE,
    SIZE,
    SPLIT,
    Page,
    grey,
    mended,
    read_page,
    scored,
    segmentation,
    truth,
    volume,
    write,
    written,
)

ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "div"),
    *("section", "figure", "img", "figcaption", "table", "thead", "tbody", "tr", "th", "td"),
    *("small", "span", "b", "i", "a", "bdi", "code", "details", "summary", "footer"),
}

HOSTILE = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *("<script>alert(1)</script>", "</style>", '"', "'", "&", "&lt;", "</bdi>", "<!--"),
                *("\u202e", "\u2066", "\u200f", "\x00", "\n", "\udcff", "javascript:", "%", "#"),
                *("]]>", "é", "漢", "🧠", " ", "onerror=x", "data:text/html,x", "`", "$(x)"),
            ]
        ),
        st.text(max_size=8),
    ),
    min_size=1,
    max_size=6,
).map("".join)


def require_harmless(page: Page) -> None:
    """No script, nothing from elsewhere, nothing but plain elements."""
    assert {tag for tag, _ in page.elements} <= ALLOWED
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert tag in {"img", "a"} or not {"src", "href"} & set(attributes)
    assert all(one["src"].startswith("data:image/png;base64,") for one in page.all("img"))
    assert all(one["href"].startswith("./") for one in page.all("a"))


def at(picture, y, x, *, of=SHAPE[1:]):
    """The pixel over the middle of a voxel of a plane."""
    row, column = (
        int((index + 0.5) * size / edge)
        for index, size, edge in zip((y, x), picture.shape, of, strict=False)
    )
    return picture[row, column]


def is_blue(pixel):
    return pixel[2] > pixel[0] + 50


def is_orange(pixel):
    return pixel[0] > pixel[2] + 50


def test_the_numbers_stand_on_the_page_with_what_they_mean(tmp_path):
    page = read_page(written(tmp_path / "out.html"))
    found = scored()
    assert f"{found.all_truth.adapted_rand_error:.4f}" in page.text
    assert f"{found.all_truth.voi_split_bits:.3f}" in page.text
    assert f"{found.coverage:.1%}" in page.text
    for words in ("mergers lower it", "splits lower it", "cut objects raise it", "0 is perfect"):
        assert words in page.text
    assert f"{found.all_truth.voxels:,} voxels with truth" in page.text
    require_harmless(page)


def test_intervals_and_skeletons_stand_on_the_page_where_there_are_any(tmp_path):
    mistake = SkeletonMistake(
        skeletons=(4,), segments=(7, 8), positions=((1, 2, 3), (1, 2, 4)), cost_nm=120.0
    )
    found = replace(
        scored(),
        intervals={"voi_split_bits": Interval(low=0.111, high=0.999, level=0.95)},
        skeletons=SkeletonScores(
            skeletons=3,
            length_nm=9000.0,
            nodes=90,
            outside=0,
            coverage=1.0,
            erl_nm=1234.0,
            possible_erl_nm=3000.0,
            correct=0.7,
            split=0.1,
            omitted=0.1,
            merged=0.1,
            splits=2,
            gaps=0,
            mergers=1,
            merge_nodes=1,
            erl_interval=Interval(low=1000.0, high=1500.0, level=0.95),
            worst_splits=(mistake,),
            worst_mergers=(),
        ),
    )
    contents = Contents(
        path=tmp_path / "out.html",
        title="t",
        evaluations=[found],
        names=["a"],
        addresses=["a"],
        truth="b",
        image=None,
        voxel_size=None,
        pictured=(),
        scene=None,
        remarks=(),
    )
    page = Page(report_page(contents))
    assert "0.111 – 0.999" in page.text
    assert "1.00 – 1.50" in page.text
    assert "1.23 µm of 3.00 µm" in page.text
    assert "join skeletons (1 node of two or more make one)" in page.text
    assert "1,2,3; 1,2,4" in page.text
    assert "95%" in page.text


def test_pictures_show_the_two_parts_of_a_merger_where_they_lie(tmp_path):
    pictures = read_page(written(tmp_path / "out.html")).pictures()
    assert len(pictures) == 6  # three of the merger, three of the split
    xy = pictures[0]
    assert is_blue(at(xy, 15, 12))
    assert is_orange(at(xy, 15, 45))
    for y, x in ((42, 12), (42, 45), (2, 2)):
        assert not is_blue(at(xy, y, x))
        assert not is_orange(at(xy, y, x))
    yellow = (xy[..., 0] > 220) & (xy[..., 1] > 210) & (xy[..., 2] < 90)
    rows, columns = np.nonzero(yellow)
    top, bottom = (int(y * xy.shape[0] / SHAPE[1]) for y in (5, 25))
    left, right = (int(x * xy.shape[1] / SHAPE[2]) for x in (5, 55))
    # The line goes around the segment, and not between its two objects.
    assert (rows.min(), rows.max()) == pytest.approx((top, bottom), abs=3)
    assert (columns.min(), columns.max()) == pytest.approx((left, right), abs=3)
    inside = yellow[top + 6 : bottom - 6, left + 6 : right - 6]
    assert not inside.any()
    between = xy[(top + bottom) // 2, int(30 * xy.shape[1] / SHAPE[2]) - 4 :][:8]
    assert (between.min(axis=1) > 150).any()  # the outline of the truth


def test_only_what_was_scored_is_shown(tmp_path):
    """Segments that meet beyond the box are no mistake that a score knows of."""
    labels, below = segmentation(), truth()
    box = Box((11, 100, 200), (20, 122, 260))
    volumes = [volume(labels, uri="seg"), volume(below, uri="truth")]
    found = evaluate(*volumes, box=box)
    assert found.worst_mergers
    write_report(
        tmp_path / "out.html",
        evaluations=[found],
        segmentations=volumes[:1],
        truth=volumes[1],
        has_viewer=False,
    )
    page = read_page(tmp_path / "out.html")
    xy, xz = page.pictures()[:2]
    assert xy.shape[0] / xy.shape[1] == pytest.approx(22 / 60, rel=0.02)
    assert xz.shape[0] / xz.shape[1] == pytest.approx(9 * 30 / 600, rel=0.02)
    (spot,) = page.text.split("z,y,x = ")[1:]
    place = tuple(int(part) for part in spot.split("the whole")[0].split(","))
    assert all(low <= at < high for low, at, high in zip(box.start, place, box.stop, strict=True))


def test_a_border_that_was_left_out_is_named(tmp_path):
    found = replace(scored(), cremi_border_nm=25.0)
    page = read_page(
        write_report(
            tmp_path / "out.html",
            evaluations=[found],
            segmentations=[volume(segmentation())],
            truth=volume(truth()),
            has_viewer=False,
            places=0,
        )
    )
    assert "voxels with truth, over 25 nm from borders of the truth, in" in page.text


def test_pictures_show_the_two_parts_of_a_split_where_they_lie(tmp_path):
    xy = read_page(written(tmp_path / "out.html")).pictures()[3]
    assert is_blue(at(xy, 42, 12))
    assert is_orange(at(xy, 42, 45))
    assert not is_blue(at(xy, 15, 12))
    assert not is_orange(at(xy, 15, 45))


def test_other_planes_are_in_proportion_to_nanometres(tmp_path):
    xy, xz, yz = read_page(written(tmp_path / "out.html")).pictures()[:3]
    assert xz.shape[0] / xz.shape[1] == pytest.approx(24 * 30 / 600, rel=0.01)
    assert yz.shape[1] / yz.shape[0] == pytest.approx(24 * 30 / 600, rel=0.01)
    assert xy.shape[0] == xy.shape[1]
    assert is_blue(at(xz, 12, 12, of=(24, 60)))
    assert is_orange(at(xz, 12, 45, of=(24, 60)))


def test_the_scale_bar_is_as_long_as_it_says(tmp_path):
    picture = read_page(written(tmp_path / "out.html")).pictures()[0]
    nm_per_pixel = 24 * 30 / 363
    white = (picture[-12:] == 255).all(axis=2)
    lengths = white.sum(axis=1)
    assert lengths.max() * nm_per_pixel == pytest.approx(200, abs=nm_per_pixel)


def test_without_an_image_the_colours_lie_on_grey(tmp_path):
    page = read_page(written(tmp_path / "out.html", image=None))
    xy = page.pictures()[0]
    assert is_blue(at(xy, 15, 12))
    assert tuple(at(xy, 2, 2)) == (96, 96, 96)
    assert "none given" in page.text


def test_without_a_voxel_size_bars_are_in_voxels(tmp_path):
    volumes = [volume(array, voxel_size=None) for array in (segmentation(), truth())]
    page = write_report(
        tmp_path / "out.html",
        evaluations=[scored()],
        segmentations=volumes[:1],
        truth=volumes[1],
        has_viewer=False,
    )
    found = read_page(page)
    assert "voxel size not stated" in found.text
    xy = found.pictures()[0]
    assert xy.shape[:2] == (363, 363)


def test_slices_cross_where_both_parts_are_seen_and_the_page_says_where(tmp_path):
    page = read_page(written(tmp_path / "out.html"))
    spots = [text.split("the whole")[0] for text in page.text.split("z,y,x = ")[1:]]
    places = [tuple(int(part) for part in spot.split(",")) for spot in spots]
    (z, y, x), (_, below, _) = places
    assert OFFSET[0] + 2 <= z < OFFSET[0] + 22
    assert OFFSET[1] + 5 <= y < OFFSET[1] + 25
    assert abs(x - OFFSET[2] - 30) <= 10
    assert OFFSET[1] + 30 <= below < OFFSET[1] + 55
    assert f"xy slice at z = {z}" in page.text


@given(st.lists(HOSTILE, min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_words_of_others_stay_words(words):
    name, address, below, image, title, remark = words
    contents = Contents(
        path=Path(f"{title.replace('/', '').replace(chr(0), '') or 'x'}.html"),
        title=title,
        evaluations=[scored_once()],
        names=[name],
        addresses=[address],
        truth=below,
        image=image,
        voxel_size=SIZE,
        pictured=pictured_once(),
        scene=Path(f"{name.replace('/', '').replace(chr(0), '') or 'x'}.scene"),
        remarks=[remark],
    )
    text = report_page(contents)
    text.encode("utf-8")
    page = Page(text)
    require_harmless(page)
    assert visible(title) == page.title
    assert visible(remark) in page.text
    hidden = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\x00")
    assert not hidden & set(text)


_kept = {}


def scored_once():
    if "scored" not in _kept:
        _kept["scored"] = scored()
    return _kept["scored"]


def pictured_once():
    """The places of a small report, with links."""
    if "pictured" not in _kept:
        from floodem.project.report.opened import Volumes

        volumes = Volumes(
            truth=volume(truth()),
            segmentations=(volume(segmentation()),),
            image=volume(grey()),
            voxel_size=SIZE,
        )
        places = choose_places([scored_once()], limit=1)
        _kept["pictured"] = [
            replace(writing.look_at(place, volumes), link_end="#!%7B%7D") for place in places
        ]
    return _kept["pictured"]


def test_a_place_says_which_segmentation_it_is_a_mistake_of(tmp_path):
    names = ("before merging", "after merging")
    page = read_page(written(tmp_path / "two.html", many=(segmentation, segmentation), names=names))
    assert "in the segmentation “before merging”" in page.text
    alone = read_page(written(tmp_path / "one.html", names=names[:1]))
    assert "in the segmentation" not in alone.text


def test_nothing_from_elsewhere_may_be_loaded(tmp_path):
    page = read_page(written(tmp_path / "out.html"))
    policies = [
        one["content"]
        for one in page.all("meta")
        if one.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "script" not in policies[0]
    text = (tmp_path / "out.html").read_text()
    assert "http://" not in text
    assert "https://" not in text


def test_keys_in_addresses_do_not_get_onto_the_page(tmp_path):
    secret = "https://host/x.zarr?X-Amz-Signature=abcdef"
    contents = Contents(
        path=tmp_path / "out.html",
        title="t",
        evaluations=[scored_once()],
        names=["a"],
        addresses=[secret],
        truth="b",
        image=None,
        voxel_size=SIZE,
        pictured=pictured_once(),
        scene=None,
        remarks=(),
    )
    assert "abcdef" not in report_page(contents)


class Endless(Volume):
    """Labels in stripes along x, far larger than any memory, that remember what was read."""

    def __init__(self, *, width, uri):
        self.uri, self.width = uri, width
        self.box = Box.from_shape((10**6, 10**6, 10**6))
        self.dtype = np.dtype(np.uint64)
        self.voxel_size = VoxelSize(40, 4, 4)
        self.chunks = (64, 64, 64)
        self.reads = []

    def _read(self, box):
        self.reads.append(box)
        stripes = np.arange(box.start[2], box.stop[2]) // self.width + 1
        return np.broadcast_to(stripes.astype(np.uint64), box.shape).copy()


def test_of_volumes_of_any_size_small_boxes_are_read(tmp_path):
    found = scored()
    far = 987_600
    mistake = found.worst_mergers[0]
    first, second = mistake.largest
    stripes = replace(
        mistake,
        id=far // 100 + 1,
        largest=(
            replace(first, id=far // 50 + 1, position=(500_000, 400_000, far + 49)),
            replace(second, id=far // 50 + 2, position=(500_000, 400_000, far + 50)),
        ),
    )
    below, above = Endless(width=50, uri="truth"), Endless(width=100, uri="seg")
    page = write_report(
        tmp_path / "out.html",
        evaluations=[replace(found, box=below.box, worst_mergers=(stripes,), worst_splits=())],
        segmentations=[above],
        truth=below,
        image=above,
        has_viewer=False,
    )
    xy = read_page(page).pictures()[0]
    left, right = xy[180, 100], xy[180, 260]
    assert is_blue(left)
    assert is_orange(right)
    for one in (below, above):
        assert one.reads
        assert len(one.reads) <= 6
        assert max(box.size for box in one.reads) <= EDGE_VOXELS**3
        assert max(box.shape[0] for box in one.reads) < 20  # ten times longer in z


def test_a_cut_out_stays_inside_and_keeps_its_size():
    frame = Box((0, 0, 0), (300, 400, 500))
    inside = cut_box((150, 200, 250), frame=frame, voxel_size=None)
    corner = cut_box((0, 399, 3), frame=frame, voxel_size=None)
    assert inside.shape == corner.shape == (121, 121, 121)
    assert frame.contains(corner)
    thin = cut_box((1, 200, 250), frame=Box((0, 0, 0), (3, 400, 500)), voxel_size=None)
    assert thin.shape == (3, 121, 121)
    flat = cut_box((150, 200, 250), frame=frame, voxel_size=VoxelSize(30, 6, 6))
    assert flat.shape == (27, 121, 121)


def test_mistakes_that_cost_nothing_are_left_out_and_the_rest_is_limited():
    found = scored()
    assert [place.mistake.id for place in choose_places([found], limit=5)] == [MERGER, SPLIT]
    assert choose_places([found], limit=0) == []
    cheap = replace(found.worst_splits[0], voi_bits=0.0001)
    assert choose_places([replace(found, worst_splits=(cheap,), worst_mergers=())], limit=5) == []


def test_an_own_page_is_replaced_and_no_other_one(tmp_path):
    path = tmp_path / "out.html"
    written(path)
    assert is_report(path)
    written(path)
    path.write_text("<html>my own</html>")
    with pytest.raises(DestinationExistsError, match="no report of floodem"):
        written(path)
    assert path.read_text() == "<html>my own</html>"
    written(path, overwrite=True)
    assert is_report(path)


def test_what_cannot_be_a_page_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"end it in \.html"):
        written(tmp_path / "out.pdf")
    with pytest.raises(StorageError, match="make it first"):
        written(tmp_path / "none" / "out.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(DestinationExistsError, match="choose another name"):
        written(tmp_path / "folder.html", overwrite=True)
    with pytest.raises(OptionError, match="at least one"):
        write_report(tmp_path / "out.html", evaluations=[])


def test_a_folder_that_no_report_made_stays(tmp_path):
    folder = scene_folder(tmp_path / "out.html")
    make_scene(folder, images=[volume(grey())])
    with pytest.raises(DestinationExistsError, match="no report made it"):
        written(tmp_path / "out.html", has_viewer=True)
    assert not (tmp_path / "out.html").exists()
    assert "image" in open_scene(folder).layers


def test_a_stopped_report_leaves_what_was_there(tmp_path):
    path = written(tmp_path / "out.html")
    before = path.read_bytes()
    with pytest.raises(StoppedError):
        written(path, has_viewer=True, should_stop=lambda: True)
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.html"]


def test_an_image_of_another_resolution_is_refused(tmp_path):
    image = volume(grey(), voxel_size=VoxelSize(60, 20, 20), uri="coarse")
    with pytest.raises(GeometryError, match="60,20,20 nm"):
        write_report(
            tmp_path / "out.html",
            evaluations=[scored()],
            segmentations=[volume(segmentation())],
            truth=volume(truth()),
            image=image,
        )


def test_an_image_that_ends_is_shown_as_far_as_it_goes(tmp_path):
    half = ArrayVolume(grey()[:, :, :20], offset=OFFSET, voxel_size=SIZE)
    page = write_report(
        tmp_path / "out.html",
        evaluations=[scored()],
        segmentations=[volume(segmentation())],
        truth=volume(truth()),
        image=half,
        has_viewer=False,
    )
    xy = read_page(page).pictures()[0]
    assert tuple(at(xy, 2, 50)) == (96, 96, 96)
    assert is_orange(at(xy, 15, 45))


def test_without_the_viewer_installed_the_page_says_so(tmp_path, monkeypatch):
    def absent():
        raise DependencyError("the viewer needs the package neuroglancer")

    monkeypatch.setattr(writing, "client_folder", absent)
    notes = []
    page = written(tmp_path / "out.html", has_viewer=True, notice=notes.append)
    assert len(notes) == 1
    assert "needs the package neuroglancer" in read_page(page).text
    assert not scene_folder(page).exists()


@pytest.mark.parametrize("name", ["out.html", HARD_NAME])
def test_links_lead_to_a_scene_of_each_place(tmp_path, name):
    page = written(tmp_path / name, has_viewer=True)
    folder = scene_folder(page)
    scene = open_scene(folder)
    assert scene.has_client
    assert MARK in json.loads((folder / "scene.json").read_text())
    links = [one["href"] for one in read_page(page).all("a")]
    assert len(links) == 2
    for link in links:
        assert "#!" in link
        path, _, _ = link.partition("#!")
        assert not set(path) & set(" '\"<>&")
    for number, ids in ((1, {MERGER}), (2, {7, 8})):
        with open_volume(f"precomputed://{folder / f'place-{number}-segmentation-1'}") as labels:
            assert labels.voxel_size == SIZE
            assert labels.offset == OFFSET
            assert ids <= set(np.unique(labels.read()).tolist())
        assert (folder / f"place-{number}-segmentation-1" / "mesh" / "info").is_file()
    assert str(tmp_path) not in "".join(
        file.read_text(errors="replace") for file in folder.glob("*.json")
    )
    # A second report takes the place of the first.
    written(page, has_viewer=True, image=None)
    assert not (folder / "place-1-image").exists()
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([name, folder.name])


def test_the_command_for_whole_volumes_is_one_that_a_shell_reads(tmp_path):
    import shlex

    uris = [
        write(tmp_path / f'{name}\'s "file" #1.h5', array)
        for name, array in (("seg", segmentation()), ("truth", truth()))
    ]
    from floodem.evaluation import evaluate

    page = read_page(
        write_report(tmp_path / "out.html", evaluations=[evaluate(*uris)], has_viewer=False)
    )
    line = page.text.split("the whole volumes there")[1].split("2. ")[0]
    words = shlex.split(line.split("Worst splits")[0])
    assert words[:2] == ["floodem", "view"]
    assert words[words.index("--segmentation") + 1] == uris[0]
    assert words[words.index("--select") + 1] == str(MERGER)
    assert "--voxel-size" in words


def test_only_the_report_and_its_scene_are_served(tmp_path):
    import urllib.error
    import urllib.request

    (tmp_path / "private.txt").write_text("secret")
    page = written(tmp_path / "a b#é.html", has_viewer=True)
    with Site.start() as site:
        address = serve_report(site, page)

        def status(below):
            try:
                with urllib.request.urlopen(f"{address.rpartition('/')[0]}/{below}") as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code

        with urllib.request.urlopen(address) as answer:
            assert answer.headers["Content-Type"].startswith("text/html")
            assert answer.read() == page.read_bytes()
        assert status("a%20b%23%C3%A9.scene/scene.json") == 200
        assert status("private.txt") == 404
        assert status("") == 404
    (tmp_path / "other.html").write_text("<html></html>")
    with Site.start() as site, pytest.raises(VolumeFormatError, match="no report"):
        serve_report(site, tmp_path / "other.html")


def test_several_segmentations_show_the_same_places(tmp_path):
    page = read_page(written(tmp_path / "out.html", many=(segmentation, mended)))
    assert len(page.pictures()) == 12
    assert f"joined here, in segment {MERGER}" in page.text
    assert f"apart here, in segments {MERGER} and {2**40}" in page.text
    assert "cut here, into segments 7 and 8" in page.text
    first, second = page.pictures()[0], page.pictures()[3]
    for picture in (first, second):
        assert is_blue(at(picture, 15, 12))
        assert is_orange(at(picture, 15, 45))
    require_harmless(page)


def test_evaluations_against_other_truths_do_not_go_together(tmp_path):
    with pytest.raises(OptionError, match="same truth"):
        write_report(
            tmp_path / "out.html", evaluations=[scored(), replace(scored(), truth="other")]
        )
    with pytest.raises(OptionError, match="different names"):
        write_report(tmp_path / "out.html", evaluations=[scored(), scored()], names=["a", "a"])
