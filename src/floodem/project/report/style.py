"""How a report looks: one style sheet, light or dark as the reader's system is."""

from __future__ import annotations

import base64
import hashlib

from floodem.project.report.drawing import FIRST, SECOND, WHOLE, Colour


def _css(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


STYLE = (
    """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2126;--soft:#5c6670;--line:#dde2e6;
--box:#f4f6f8;--link:#0b5cad;--good:#00714f;--bad:#a84300}
@media(prefers-color-scheme:dark){:root{--paper:#15191d;--ink:#e4e8ec;--soft:#9aa5b0;--line:#323a42;
--box:#1d2329;--link:#7db8f0;--good:#4cc79c;--bad:#f0a060}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:20px 24px 40px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,"Segoe UI",sans-serif}
h1{font-size:24px;margin:0 0 4px}h2{font-size:19px;margin:34px 0 8px}
h3{font-size:16px;margin:0 0 2px}
bdi{overflow-wrap:anywhere}
.when,footer,.soft{color:var(--soft);font-size:13px}footer{margin-top:34px}
p{margin:6px 0;max-width:80em}
a{color:var(--link)}
.figures{display:flex;flex-wrap:wrap;gap:12px 40px;margin:16px 0}
.figures b{display:block;font-size:23px;line-height:1.25;font-variant-numeric:tabular-nums}
.figures i{display:block;font-style:normal;font-size:13px;font-variant-numeric:tabular-nums}
.figures span{color:var(--soft);font-size:13px}
.wide{overflow-x:auto;margin:10px 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}
th,td{padding:4px 14px 4px 0;text-align:right;border-bottom:1px solid var(--line);
vertical-align:top}
th{color:var(--soft);font-weight:600}
th:first-child,td:first-child{text-align:left}
td.meaning,th.meaning{text-align:left;color:var(--soft);font-size:13px;max-width:34em;
padding-left:10px}
td.best{font-weight:700;color:var(--good)}
td small,th small{display:block;font-weight:400;color:var(--soft);white-space:nowrap}
.better,td .better{color:var(--good)}.worse,td .worse{color:var(--bad)}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(400px,1fr));gap:6px 40px}
.place{border-top:1px solid var(--line);padding:16px 0 10px}
.panels{display:grid;grid-template-columns:repeat(3,minmax(0,363px));gap:8px 12px;margin:8px 0}
figure{margin:0}img{display:block;max-width:100%;height:auto;border-radius:3px}
figcaption{color:var(--soft);font-size:12px}
.of{font-size:14px;margin:10px 0 0}
.key{display:inline-block;width:12px;height:12px;border-radius:2px;margin:0 5px -1px 0}
.legend span{margin-right:18px;white-space:nowrap}
.legend{font-size:13px;color:var(--soft)}
.open{display:inline-block;margin-right:16px;font-weight:600}
.note{background:var(--box);border-left:5px solid var(--soft);padding:10px 16px;margin:12px 0}
pre,code{background:var(--box);font-size:13px}
pre{padding:10px;overflow-x:auto;margin:6px 0}code{padding:1px 4px;overflow-wrap:anywhere}
details{font-size:13px;margin:4px 0}summary{color:var(--soft);cursor:pointer}
"""
    f".first{{background:{_css(FIRST)}}}.second{{background:{_css(SECOND)}}}"
    f".whole{{border:3px solid {_css(WHOLE)};background:#5d6166}}"
    ".outline{border:2px solid #fff;background:#5d6166;box-shadow:0 0 0 1px #5d6166}"
)

POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode("ascii")
    + "'; base-uri 'none'; form-action 'none'"
)
"""What a page may load (Content Security Policy): the pictures and the style within it."""
