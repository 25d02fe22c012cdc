"""Ids on the command line."""

from __future__ import annotations

import pytest

from floodem.cli.ids import read_ids
from floodem.errors import OptionError


@pytest.mark.parametrize(
    ("texts", "ids"),
    [
        (["5"], (5,)),
        (["0, 5", "18446744073709551615"], (0, 5, 2**64 - 1)),
        (["7 9\n12"], (7, 9, 12)),
        ([], ()),
    ],
)
def test_ids_are_read_in_their_order(texts, ids):
    assert read_ids(texts, option="--ids") == ids


@pytest.mark.parametrize("text", ["", "5,", "x", "-1", "1.5", "٣", "18446744073709551616"])
def test_what_no_id_can_be_is_refused_with_its_option(text):
    with pytest.raises(OptionError, match="--only-ids '.*' is not an id"):
        read_ids([text], option="--only-ids")
