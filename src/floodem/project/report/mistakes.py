"""The part of a page that shows places: pictures, what they show, and ways into the viewer."""

from __future__ import annotations

import base64
import html

from floodem.project.report.contents import Contents, Panel, Pictured
from floodem.project.report.drawing import PLANES
from floodem.project.report.text import attribute, command, relative_link, shown, visible
from floodem.volumes.servers.addresses import without_secrets

_LINK_TEXT = "open in the viewer"


def mistakes_section(contents: Contents) -> str:
    """Return both lists of places, or a sentence where there is none."""
    parts = []
    for kind, heading, nothing in (
        ("merger", "Worst mergers", "No segment joins objects of the truth."),
        ("split", "Worst splits", "No object of the truth is cut."),
    ):
        places = "".join(
            _place(contents, one, number=number)
            for number, one in enumerate(contents.pictured, start=1)
            if one.seen.place.kind == kind
        )
        parts.append(f"<h2>{heading}</h2>{places or f'<p>{nothing}</p>'}")
    return f"{_opening(contents)}{''.join(parts)}"


def _opening(contents: Contents) -> str:
    """Say how the links on the page are opened."""
    if contents.scene is None:
        return ""
    told = command(["floodem", "view", str(contents.path)])
    line = "<code>floodem view</code> with the name of this page" if told is None else told
    return (
        f'<p class="note">Each place below opens in the viewer, in 3-D: run {line} and click a '
        "link in the page that opens then. (Browsers let a page from the disk read nothing beside "
        "it. Any web server will do as well, with this page and the folder "
        f"{shown(contents.scene.name)} beside each other on it.)</p>"
    )


def _place(contents: Contents, one: Pictured, *, number: int) -> str:
    place, mistake = one.seen.place, one.seen.place.mistake
    first, second = mistake.largest
    many = len(contents.evaluations) > 1
    maker = f" in the segmentation “{shown(contents.names[place.owner])}”" if many else ""
    if place.kind == "merger":
        title = f"Segment {mistake.id} joins objects {first.id} and {second.id}{maker}"
        whole, part, outline = "segment", "object", "all objects of the truth"
    else:
        title = f"Object {mistake.id} is cut into segments {first.id} and {second.id}{maker}"
        whole, part, outline = "object", "segment", "all objects of the truth"
    costs = (
        f"costs {mistake.voi_bits:.4f} bits; {mistake.parts:,} {part}s in all, as much as "
        f"{mistake.effective_parts:.1f} equal ones; {mistake.voxels:,} voxels"
    )
    if not one.has_both:
        costs += f". The two parts lie far from each other: shown is where {part} {second.id} is"
    legend = "".join(
        f'<span><i class="key {name}"></i>{words}</span>'
        for name, words in (
            ("first", f"{part} {first.id}: {first.voxels:,} voxels"),
            ("second", f"{part} {second.id}: {second.voxels:,} voxels"),
            ("whole", f"around the {whole}"),
            ("outline", outline),
        )
    )
    rows = "".join(_row(contents, one, number=which) for which in range(len(contents.evaluations)))
    return (
        f'<section class="place" id="place-{number}"><h3>{number}. {title}</h3>'
        f'<p class="soft">{costs}</p>{rows}<p class="legend">{legend}</p>'
        f"{_ways(contents, one)}</section>"
    )


def _row(contents: Contents, one: Pictured, *, number: int) -> str:
    """Return the pictures of one segmentation, with what it makes of the place where several do."""
    heading = ""
    if len(contents.evaluations) > 1:
        heading = (
            f'<p class="of"><b>{shown(contents.names[number])}</b>: '
            f"{verdict(one, number=number)}</p>"
        )
    figures = "".join(_figure(panel, one) for panel in one.panels[number])
    return f'{heading}<div class="panels">{figures}</div>'


def verdict(one: Pictured, *, number: int) -> str:
    """Say in a few words what a segmentation makes of a place."""
    place = one.seen.place
    first, second = one.seen.segments[number]
    if place.kind == "merger":
        without = [
            str(label)
            for label, segment in zip(place.objects, (first, second), strict=True)
            if not segment
        ]
        if without:
            return f"no segment on object {' and '.join(without)} here"
        if first == second:
            return f"joined here, in segment {first}"
        return f"apart here, in segments {first} and {second}"
    found = [segment for segment in (first, second) if segment]
    if len(found) < len((first, second)):
        here = f"segment {found[0]} and a part without any" if found else "no segment"
        return f"{here} here"
    if first == second:
        return f"whole here, in segment {first}"
    return f"cut here, into segments {first} and {second}"


def _figure(panel: Panel, one: Pictured) -> str:
    axis = "zyx"[panel.axis]
    plane = PLANES[panel.axis]
    says = f"{plane} slice at {axis} = {panel.index}"
    down, right = {"xy": ("y", "x"), "xz": ("z", "x"), "yz": ("y", "z")}[plane]
    data = base64.b64encode(panel.png).decode("ascii")
    kind = one.seen.place.kind
    return (
        f'<figure><img alt="{kind}, {says}" width="{panel.width}" height="{panel.height}" '
        f'src="data:image/png;base64,{data}">'
        f"<figcaption>{says} ({right} →, {down} ↓)</figcaption></figure>"
    )


def _ways(contents: Contents, one: Pictured) -> str:
    at = ",".join(map(str, one.seen.position))
    link = ""
    if contents.scene is not None and one.link_end is not None:
        address = attribute(relative_link(contents.scene, "index.html") + one.link_end)
        link = (
            f'<a class="open" href="{address}" target="_blank" rel="noopener noreferrer">'
            f"{_LINK_TEXT}</a>"
        )
    return f'<p>{link}<span class="soft">z,y,x = {at}</span></p>{_whole_volumes(contents, one)}'


def _whole_volumes(contents: Contents, one: Pictured) -> str:
    """Return the command that opens the whole volumes at a place."""
    place = one.seen.place
    addresses = [contents.addresses[place.owner], contents.truth]
    words = ["floodem", "view"]
    if contents.image is not None:
        words += ["--image", contents.image]
    for address in addresses:
        words += ["--segmentation", address]
    if contents.voxel_size is not None:
        words += ["--voxel-size", str(contents.voxel_size)]
    words += ["--position", ",".join(map(str, one.seen.position))]
    words += ["--select", ",".join(map(str, dict.fromkeys(place.segments)))]
    line = command(words)
    if line is None or any(without_secrets(word) != word for word in words):
        why = "a name holds letters that cannot be shown, or an address a key"
        return f'<p class="soft">No command for the whole volumes: {html.escape(visible(why))}.</p>'
    return f"<details><summary>the whole volumes there</summary>{line}</details>"
