"""What a run writes down: lines that survive a kill, pictures, the page, TensorBoard."""

from __future__ import annotations

import base64
import builtins
import html.parser
import io
import json
import math
import re
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from floodem.errors import StorageError, VolumeFormatError
from floodem.geometry import VoxelSize
from floodem.training.record import events
from floodem.training.record.curves import Series, bar_chart, curve_chart, nice_step, number_text
from floodem.training.record.history import History
from floodem.training.record.lines import append_line, cut_torn_end, keep_lines, read_lines
from floodem.training.record.pictures import Example, draw, draw_plane, saved_pictures
from floodem.training.record.record import (
    PICTURES_KEPT,
    Record,
    read_metrics,
    read_validations,
)
from floodem.training.validation.choice import ValidationFailure
from validation_cases import held_out_of, score

NASTY = '<script>alert("x")</script>&'


def record_of(folder, *, resumed_at=None, held_out=None):
    notices = []
    record = Record(folder, resumed_at=resumed_at, held_out=held_out, notice=notices.append)
    return record, notices


@pytest.fixture
def no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr(events, "is_installed", lambda: False)
    monkeypatch.setattr("floodem.training.record.record.is_installed", lambda: False)


def example(shape=(9, 17, 21), *, voxel_size=None):
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    ball = np.float32(((y - 8) ** 2 + (x - 10) ** 2) < 30)
    return Example(
        image=ball * 2 - 1,
        target=0.05 + 0.9 * ball,
        prediction=ball,
        weight=np.float32(z > 1),
        voxel_size=voxel_size,
    )


class Page(html.parser.HTMLParser):
    """Collects tags and texts, and checks that tags close."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "line", "rect", "circle", "polygon", "polyline"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        self.text += data


# Lines


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.floats() | st.text() | st.integers(), max_size=4)))
def test_lines_come_back_as_they_were_but_for_what_is_not_finite(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    for row in rows:
        append_line(path, row)
    expected = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
    assert read_lines(path) == expected


@pytest.mark.parametrize("length", [1, 9, 100_000])
def test_a_torn_last_line_is_ignored_and_then_cut_off(tmp_path, length):
    path = tmp_path / "rows.jsonl"
    append_line(path, {"step": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + (b'{"step": 2, "a": "' + b"x" * 100_000)[:length])
    assert read_lines(path) == [{"step": 1}]
    cut_torn_end(path)
    assert path.read_bytes() == whole
    append_line(path, {"step": 3})
    assert read_lines(path) == [{"step": 1}, {"step": 3}]


def test_a_file_with_nothing_but_a_torn_line_becomes_empty(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"st')
    cut_torn_end(path)
    assert path.read_bytes() == b""
    cut_torn_end(tmp_path / "none.jsonl")
    assert read_lines(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("damage", ["{", "3", "[1]", "\x00"])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, damage):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"step": 1}}\n{damage}\n{{"step": 3}}\n')
    before = path.read_bytes()
    with pytest.raises(VolumeFormatError, match="line 2 of .*rows.jsonl"):
        keep_lines(path, where=lambda row: True)
    assert path.read_bytes() == before


def test_a_row_without_a_step_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1.0}\n')
    with pytest.raises(VolumeFormatError, match="has step None"):
        record_of(tmp_path, resumed_at=3)
    with pytest.raises(VolumeFormatError, match="has step None"):
        read_metrics(tmp_path)


def test_a_full_disk_leaves_the_lines_before(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    append_line(path, {"step": 1})

    class Full(io.FileIO):
        def write(self, data):
            return super().write(data[:5])

    monkeypatch.setattr(builtins, "open", lambda name, mode, **options: Full(name, "a"))
    with pytest.raises(StorageError, match="cannot write .*rows.jsonl"):
        append_line(path, {"step": 2})
    monkeypatch.undo()
    assert read_lines(path) == [{"step": 1}]


# History


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(-1e6, 1e6)), max_size=20))
def test_history_gives_back_columns_with_gaps(rows):
    history = History({"step": step, **row} for step, row in enumerate(rows))
    assert history.steps().tolist() == list(range(len(rows)))
    assert history.names == sorted({name for row in rows for name in row})
    for name in "abcd":
        np.testing.assert_array_equal(
            history.column(name), [row.get(name, math.nan) for row in rows]
        )
        known = [row[name] for row in rows if name in row]
        assert history.last(name) == (known[-1] if known else None)


# The record


def test_numbers_are_appended_and_come_back(tmp_path):
    record, _ = record_of(tmp_path)
    record.steps(50, {"loss": 0.7, "gradient_norm": float("nan")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 50,
        "loss": 0.7,
        "gradient_norm": None,
    }
    record.close()
    assert read_metrics(tmp_path).last("loss") == 0.7


def test_a_resumed_run_forgets_what_it_will_do_again(tmp_path):
    record, _ = record_of(tmp_path)
    for step in (50, 100, 150):
        record.steps(step, {"loss": step / 100})
        record.picture(step, example())
    record.validation(score(120, 0.3))
    record.failed_validation(ValidationFailure(step=60, hours=0.1, reason="none", seconds=1.0))
    record.close()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 200, "lo')
    resumed, _ = record_of(tmp_path, resumed_at=100)
    resumed.steps(150, {"loss": 9.0})
    resumed.close()
    assert read_metrics(tmp_path).steps().tolist() == [50, 100, 150]
    assert read_metrics(tmp_path).column("loss").tolist() == [0.5, 1.0, 9.0]
    assert [step for step, _ in saved_pictures(tmp_path / "pictures")] == [50, 100]
    # Validations stay: the best model file may be of these weights.
    assert [row.step for row in read_validations(tmp_path)] == [120, 60]
    assert resumed.best.step == 120


def test_a_fresh_run_begins_with_nothing(tmp_path):
    record, _ = record_of(tmp_path)
    record.steps(50, {"loss": 0.5})
    record.picture(50, example())
    record.validation(score(50, 0.3))
    record.close()
    fresh, _ = record_of(tmp_path)
    assert fresh.scores == []
    assert len(read_metrics(tmp_path)) == 0
    assert saved_pictures(tmp_path / "pictures") == []


def test_failures_are_rows_and_notices(tmp_path):
    record, notices = record_of(tmp_path)
    record.failed_validation(
        ValidationFailure(step=60, hours=0.1, reason="no segment", seconds=1.0)
    )
    assert notices == ["the validation of step 60 has no score: no segment"]
    assert record.scores == []
    assert record.best is None
    (row,) = read_validations(tmp_path)
    assert row == ValidationFailure(step=60, hours=0.1, reason="no segment", seconds=1.0)
    record.close()


def test_the_best_is_chosen_and_convergence_told(tmp_path):
    record, _ = record_of(tmp_path)
    for step, cost in ((1, 0.5), (2, 0.3), (3, 0.3)):
        record.validation(score(step, cost))
    assert record.best.step == 2
    assert "3 validations, 5 are needed" in record.convergence().sentence
    record.close()


def test_old_pictures_are_pruned(tmp_path, monkeypatch, no_tensorboard):
    monkeypatch.setattr("floodem.training.record.record.PICTURES_KEPT", 2)
    record, _ = record_of(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/mine.png").write_bytes(b"")
    for step in (1, 2, 10, 11):
        record.picture(step, example())
    assert [step for step, _ in saved_pictures(tmp_path / "pictures")] == [10, 11]
    assert (tmp_path / "pictures/mine.png").exists()
    assert PICTURES_KEPT > 2


def test_a_picture_or_page_that_cannot_be_written_is_a_notice(tmp_path, no_tensorboard):
    record, notices = record_of(tmp_path)
    (tmp_path / "pictures").write_bytes(b"in the way")
    record.picture(1, example())
    assert "pictures of step 1" in notices[-1]
    (tmp_path / "report.html").mkdir()
    record.write_report()
    assert "the report is not up to date" in notices[-1]


def test_numbers_that_cannot_be_written_are_an_error(tmp_path, no_tensorboard):
    record, _ = record_of(tmp_path)
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match="metrics.jsonl"):
        record.steps(1, {"loss": 1.0})


# Pictures


def test_planes_cut_the_middle_with_z_y_x_in_their_places():
    volume = np.zeros((3, 5, 7), np.float32)
    volume[1, 1, 5] = 1  # in the middle section, above and right of the centre
    volume[2, 2, 1] = 0.5  # below, in the middle row
    dark = np.zeros_like(volume)
    planes = Example(image=volume - 2, target=volume, prediction=dark, weight=dark)

    def second_panel(plane):
        # Panels have their edges in proportion, 4 pixels between them.
        pixels = draw_plane(planes, plane)
        width = (pixels.shape[1] + 4) // 4
        return pixels[:, width : 2 * width - 4]

    xy, xz = second_panel("xy"), second_panel("xz")
    assert xy.shape[1] / xy.shape[0] == pytest.approx(7 / 5, rel=0.02)
    y, x = (index.mean() for index in np.nonzero(xy == 255))
    assert y / xy.shape[0] == pytest.approx(1.5 / 5, abs=0.02)
    assert x / xy.shape[1] == pytest.approx(5.5 / 7, abs=0.02)
    z, x = (index.mean() for index in np.nonzero(xz))
    assert z / xz.shape[0] == pytest.approx(2.5 / 3, abs=0.02)
    assert x / xz.shape[1] == pytest.approx(1.5 / 7, abs=0.02)
    yz = second_panel("yz")
    assert yz.shape[0] / yz.shape[1] == pytest.approx(5 / 3, rel=0.02)
    assert not yz.any()


def test_pictures_keep_the_proportions_of_nanometres():
    sizes = draw_plane(example((5, 15, 15), voxel_size=VoxelSize(30, 10, 10)), "xz").shape
    assert sizes[0] == 160
    assert draw_plane(example((5, 15, 15)), "xz").shape[0] == 53


def test_values_that_are_no_numbers_can_be_drawn():
    shown = Example(
        **{
            name: np.full((3, 3, 3), np.nan, np.float32)
            for name in ("image", "target", "prediction", "weight")
        }
    )
    assert draw(shown).size[0] > 0


# The page


def full_record(tmp_path, *, name="run"):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.toml").write_text(f'run = "{NASTY}"\n')
    record, notices = record_of(folder)
    for step in range(10, 5001, 10):
        record.steps(
            step,
            {
                "loss": 1 / step,
                "learning_rate": 0.001,
                "hours": step / 1000,
                "moves_correct": 0.8,
                "moves_missed": 0.1,
                "moves_spurious": 0.1,
                "moves_correct_by_distance_8": 0.6,
                "moves_missed_by_distance_8": 0.3,
                "moves_spurious_by_distance_8": 0.1,
                "f1": 0.9,
                "examples_seen": 3.0 * step,
                "network_share": 0.9,
            },
        )
    record.picture(5000, example())
    for step in (1000, 2000, 3000):
        record.validation(score(step, 0.5 - step / 10_000))
    record.failed_validation(
        ValidationFailure(step=4000, hours=4.0, reason=f"bad {NASTY}", seconds=1.0)
    )
    return folder, record, notices


def test_the_page_tells_everything_and_needs_nothing_else(tmp_path, no_tensorboard):
    folder, record, _ = full_record(tmp_path)
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "Cannot tell yet whether it has converged" in page.text
    assert "★ best" in page.text
    assert "step-00003000.h5@labels" in page.text
    assert len(re.findall(r"<tr class=best>", text)) == 1
    titles = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
    for title in (
        "adapted Rand error (0 is perfect)",
        "VOI in bits",
        "loss",
        "share of moves",
        "moves by distance in voxels, of late",
        "voxels",
        "learning rate",
    ):
        assert title in titles
    sources = [attrs.get("src") or attrs.get("href") for _, attrs in page.tags]
    sources = [source for source in sources if source]
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2])))
    assert picture.size[0] > 300
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert len(text) < 200_000
    record.close()


def test_the_page_says_what_is_scored_and_how_to_look_at_it(tmp_path, no_tensorboard):
    record, _ = record_of(tmp_path, held_out=held_out_of(one_segment_error=0.4))
    record.validation(score(10, 0.45))
    record.close()
    page = (tmp_path / "report.html").read_text()
    assert "where one segment over everything has an adapted Rand error of 0.400" in page
    assert "No validation was better than one segment" in page
    made = tmp_path / "validation" / "step-00000010.h5@labels"
    assert f"floodem view &#x27;held out.zarr&#x27; {made} truth.zarr" in page
    assert ">one segment</text>" in page


def test_words_from_outside_are_escaped(tmp_path, no_tensorboard):
    folder, record, _ = full_record(tmp_path, name="run &lt;b> 'a'")
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert not [tag for tag, _ in page.tags if tag == "b" and "&lt;" in str(_)]
    assert page.text.count(NASTY) == 2
    assert "run &lt;b> 'a'" in page.text
    record.close()


def test_the_page_reloads_itself_until_the_run_has_ended(tmp_path, no_tensorboard):
    folder, record, _ = full_record(tmp_path)

    def reloads():
        text = (folder / "report.html").read_text(encoding="utf-8")
        return any(attrs.get("http-equiv") == "refresh" for _, attrs in Page(text).tags)

    assert reloads()
    record.close()
    assert not reloads()


def test_a_page_without_numbers_says_so(tmp_path, no_tensorboard):
    record, _ = record_of(tmp_path)
    record.close()
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "No step yet" in page.text
    assert "No validation yet" in page.text


def test_the_page_is_written_now_and_then_without_a_validation(
    tmp_path, monkeypatch, no_tensorboard
):
    record, _ = record_of(tmp_path)
    record.steps(1, {"loss": 1.0})
    assert not (tmp_path / "report.html").exists()
    monkeypatch.setattr("floodem.training.record.record.REPORT_SECONDS", 0.0)
    record.steps(2, {"loss": 1.0})
    assert (tmp_path / "report.html").exists()


# Curves


def parsed(drawing):
    return ET.fromstring(drawing)


def test_a_curve_lies_where_its_numbers_are():
    x = np.array([0.0, 50.0, 100.0])
    drawing = parsed(
        curve_chart("a & b", [Series(name="", x=x, y=np.array([0.0, 2.0, 1.0]), marked=50.0)])
    )
    line = drawing.find("polyline").get("points").split()
    places = [tuple(map(float, point.split(","))) for point in line]
    assert places[0] == (52.0, 196.0)
    assert places[1] == (246.0, 26.0)
    assert places[2] == (440.0, 111.0)
    best = drawing.find("circle")
    assert (best.get("cx"), best.get("cy")) == ("246.0", "26.0")
    assert drawing.get("aria-label") == "a & b"


def test_long_curves_are_averaged_with_a_band():
    x = np.arange(10_000.0)
    y = np.where(np.arange(10_000) % 2, 1.0, 3.0)
    drawing = parsed(curve_chart("t", [Series(name="", x=x, y=y)], floor=0.0))
    points = drawing.find("polyline").get("points").split()
    assert len(points) < 300
    assert {point.split(",")[1] for point in points} <= {"81.4", "82.7", "83.9"}
    assert drawing.find("polygon") is not None


def test_curves_without_finite_numbers_are_not_drawn():
    nothing = np.full(3, np.nan)
    assert curve_chart("t", [Series(name="a", x=np.arange(3.0), y=nothing)]) == ""
    assert curve_chart("t", []) == ""
    assert bar_chart("t", [], names=()) == ""


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.floats(-1e9, 1e9)), min_size=1, max_size=30),
    st.sampled_from([None, 0.0]),
)
def test_any_curve_stays_inside_its_drawing(points, floor):
    x, y = (np.array(column, np.float64) for column in zip(*sorted(points), strict=True))
    text = curve_chart("t", [Series(name="a", x=x, y=y, has_dots=True)], floor=floor)
    assert "nan" not in text
    for point in parsed(text).find("polyline").get("points").split():
        a, b = map(float, point.split(","))
        assert 51.9 <= a <= 450.1
        assert 25.9 <= b <= 196.1


def test_bars_are_as_long_as_their_shares():
    drawing = parsed(bar_chart("t", [("8", (0.5, 0.25, 0.25))], names=("a", "b", "c")))
    widths = [float(bar.get("width")) for bar in drawing.findall("rect")]
    assert widths == pytest.approx([194, 97, 97], abs=0.11)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.25, "0.25"), (40_000, "40k"), (1.5e6, "1.5M"), (1e-5, "1e-05"), (0, "0"), (5000, "5000")],
)
def test_numbers_of_axes_are_short(value, text):
    assert number_text(value) == text


@settings(deadline=None)
@given(st.floats(1e-9, 1e9))
def test_steps_of_axes_are_round_and_large_enough(size):
    step = nice_step(size)
    assert size * (1 - 1e-9) <= step <= size * 10
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in {1, 2, 5}


# TensorBoard


def test_tensorboard_gets_the_references_names(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install floodem[train]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record, notices = record_of(tmp_path)
    names = {
        "loss": "loss",
        "moves_correct": "moves/all/correct",
        "moves_spurious_by_distance_11": "moves/r=11/spurious",
        "f1": "eval/all/f1",
        "learning_rate": "learning_rate",
    }
    record.steps(50, {**dict.fromkeys(names, 0.5), "recall": float("nan")})
    record.validation(score(50, 0.25))
    record.picture(50, example())
    record.close()
    assert notices == []
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    tags = found.Tags()
    assert set(tags["images"]) == {"final_xy/0", "final_xz/0", "final_yz/0"}
    assert {*names.values(), "validation/adapted_rand_error"} <= set(tags["scalars"])
    assert "eval/all/recall" not in tags["scalars"]
    assert found.Scalars("moves/all/correct")[0].value == 0.5
    assert found.Scalars("validation/adapted_rand_error")[0].step == 50


def test_without_tensorboard_a_notice_says_what_there_is_instead(tmp_path, no_tensorboard):
    record, notices = record_of(tmp_path)
    record.steps(50, {"loss": 0.5})
    record.close()
    assert len(notices) == 1
    assert "report.html" in notices[0]
    assert not list(tmp_path.glob("events*"))
    assert read_metrics(tmp_path).last("loss") == 0.5
    assert record_of(tmp_path, resumed_at=50)[1] == []
