"""Messages count in words that fit the number."""

from __future__ import annotations

from floodem.counting import counted


def test_one_thing_is_not_called_things():
    assert counted(1, "segment") == "1 segment"
    assert counted(0, "segment") == "0 segments"
    assert counted(1204, "segment") == "1,204 segments"
    assert counted(1, "entry", many="entries") == "1 entry"
    assert counted(2, "entry", many="entries") == "2 entries"
