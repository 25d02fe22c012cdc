"""What may be shown to other people: a viewer's state in, the same without anything private out.

Addresses of this machine, tokens, passwords and signed queries are left out. What a
local layer was read from is named instead where others can read it too (gs, s3).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from floodem.viewer.addresses import public_url

_HOST = re.compile(r"://(?:[^/\s@]*@)?(\[[0-9A-Fa-f:.%]+\]|[^/:\s?#|]+)")
_LOCAL_SCHEMES = ("python://", "file:", "local:")
_KEPT_LOCAL = ("local://annotations", "local://equivalences")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A state that may be passed on.

    Attributes
    ----------
    state
        Neuroglancer's JSON.
    remarks
        Sentences on what was left out or replaced.
    """

    state: dict[str, Any]
    remarks: tuple[str, ...]


def shareable(
    state: Mapping[str, Any], *, public: Mapping[str, str | None], secrets: Collection[str]
) -> Shared:
    """Take everything private out of a viewer's state.

    Parameters
    ----------
    state
        As ``neuroglancer.Viewer.state.to_json()`` gives it.
    public
        For layers that this machine serves, by name: what others can read in place of
        the layer's first source, or None.
    secrets
        Texts that must stand nowhere in the result: tokens, the server's address.
    """
    layers: list[dict[str, Any]] = []
    remarks: list[str] = []
    for layer in state.get("layers", []):
        kept, remark = _layer(layer, public.get(layer.get("name", "")), secrets)
        if kept is not None:
            layers.append(kept)
        if remark:
            remarks.append(f"{layer.get('name')}: {remark}")
    shared = dict(state) | {"layers": layers}
    left_out = {layer.get("name") for layer in state.get("layers", [])} - {
        layer.get("name") for layer in layers
    }
    if shared.get("selectedLayer", {}).get("layer") in left_out:
        del shared["selectedLayer"]
    clean = _without(shared, secrets)
    assert isinstance(clean, dict)
    return Shared(state=clean, remarks=tuple(remarks))


def is_local_source(url: str) -> bool:
    """Tell whether an address means something on this machine only."""
    if url.startswith(_KEPT_LOCAL):
        return False
    if url.startswith(_LOCAL_SCHEMES):
        return True
    if _ADDRESS.match(url) is None:
        return True
    return any(_is_loopback(host) for host in _HOST.findall(url))


def _is_loopback(host: str) -> bool:
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _layer(
    layer: Mapping[str, Any], public: str | None, secrets: Collection[str]
) -> tuple[dict[str, Any] | None, str | None]:
    """Return a layer with its public sources, or None where it has none, and what was changed."""
    given = layer.get("source")
    if given is None:
        return dict(layer), None
    sources = given if isinstance(given, list) else [given]
    kept: list[Any] = []
    was_cut = was_replaced = False
    for number, source in enumerate(sources):
        url = _url(source)
        if is_local_source(url) or _holds(url, secrets):
            if number == 0 and public is not None:
                kept.append(_with_url(source, public))
                was_replaced = True
            continue
        cut = public_url(url)
        was_cut = was_cut or cut != url
        kept.append(_with_url(source, cut))
    if not kept:
        return None, "left out, as only this machine can read it"
    remark = None
    if was_replaced:
        remark = f"{public} stands for what this machine serves; it needs rights of its own"
    elif len(kept) < len(sources):
        remark = "what only this machine can read of it is left out"
    elif was_cut:
        remark = "passwords and signed queries are left out of its address"
    return dict(layer) | {"source": kept if isinstance(given, list) else kept[0]}, remark


def _url(source: Any) -> str:
    url = source.get("url") if isinstance(source, Mapping) else source
    if isinstance(url, Mapping):  # of a volume in memory
        return "python://"
    return url if isinstance(url, str) else ""


def _with_url(source: Any, url: str) -> Any:
    if not isinstance(source, Mapping):
        return url
    return dict(source) | {"url": url}


def _without(value: Any, secrets: Collection[str]) -> Any:
    """Drop every text, and every key, in which a secret stands."""
    if isinstance(value, Mapping):
        return {
            key: _without(one, secrets)
            for key, one in value.items()
            if not _holds(key, secrets) and not _holds(one, secrets)
        }
    if isinstance(value, list | tuple):
        return [_without(one, secrets) for one in value if not _holds(one, secrets)]
    return value


def _holds(value: Any, secrets: Collection[str]) -> bool:
    return isinstance(value, str) and any(secret in value for secret in secrets if secret)
