"""How the page of a run looks: one style sheet, light or dark as the reader's system is."""

from __future__ import annotations

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a7a00")
"""Told apart by colour-blind readers as well (Okabe and Ito 2008)."""

_CURVES = "".join(
    f".l{number}{{stroke:{colour};fill:none;stroke-width:1.6;stroke-linejoin:round}}"
    f".f{number},.t{number}{{fill:{colour}}}.b{number}{{fill:{colour};opacity:.18}}"
    for number, colour in enumerate(_COLOURS)
)

STYLE = (
    """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2126;--soft:#5c6670;--line:#dde2e6;
--box:#f4f6f8}
@media(prefers-color-scheme:dark){:root{--paper:#15191d;--ink:#e4e8ec;--soft:#9aa5b0;--line:#323a42;
--box:#1d2329}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:20px 24px 40px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,"Segoe UI",sans-serif}
header{display:flex;align-items:baseline;gap:14px;flex-wrap:wrap}
h1{font-size:24px;margin:0}h2{font-size:17px;margin:26px 0 8px}
.when,footer{color:var(--soft);font-size:13px}footer{margin-top:30px}
.verdict{font-size:17px;padding:12px 16px;margin:12px 0;background:var(--box);
border-left:5px solid var(--soft)}
.improving{border-color:#009e73}.flat{border-color:#e69f00}.worsening{border-color:#d55e00}
.figures{display:flex;flex-wrap:wrap;gap:10px 34px}
.figures b{display:block;font-size:20px}.figures span{color:var(--soft);font-size:13px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:12px}
svg{width:100%;height:auto;background:var(--box);border-radius:4px}
svg text{font:11px system-ui,"Segoe UI",sans-serif}
.title{fill:var(--ink);font-weight:600!important}.tick{fill:var(--soft)}
.grid{stroke:var(--line);stroke-width:1}
circle.best{fill:none;stroke:var(--ink);stroke-width:1.6}
.wide{overflow-x:auto;max-height:420px;overflow-y:auto;margin-top:12px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px;width:100%}
th,td{padding:3px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{position:sticky;top:0;background:var(--paper);color:var(--soft);font-weight:600}
th:first-child,td:first-child{text-align:left}
tr.best td{background:var(--box);font-weight:600}
tr.failed td{color:var(--soft)}td.reason{text-align:left;white-space:normal}
.pictures{display:flex;flex-wrap:wrap;gap:16px}figure{margin:0;flex:1 1 330px;max-width:640px}
img{width:100%;background:#cdcdcd;padding:6px;border-radius:4px}
figcaption{color:var(--soft);font-size:13px}
pre{background:var(--box);padding:12px;overflow-x:auto;font-size:13px}code{font-size:13px}
"""
    + _CURVES
)
