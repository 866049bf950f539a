"""The report's one style sheet: light and dark, as wide as a phone or a desk. Pure."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #ffffff; --ink: #1b2330; --soft: #5d6878; --line: #dde2e9;
  --mark: #e9f5ee; --good: #15803d; --teacher: #2563eb; --student: #c2560c; --heat: 37, 99, 235;
  --bad: #c01c28;
  --bar-teacher: #b9cffb; --bar-student: #fbd0a6; --bar-other: #d3d9e2; --here: #eef1f5; --deep: #ffffff;
  --c0: #2563eb;
  --c1: #c2560c; --c2: #15803d; --c3: #a21caf; --c4: #b45309; --c5: #0e7490; --c6: #be123c; --c7: #4d7c0f;
  --c8: #6d28d9; --c9: #57534e; }
@media (prefers-color-scheme: dark) { :root { --ground: #11151b; --card: #191f28; --ink: #e6eaf0; --soft: #98a3b3;
  --line: #2c3542; --mark: #16301f; --good: #4ade80; --teacher: #76a5ff; --student: #f59e57; --heat: 118, 165, 255;
  --bad: #ff7b7b;
  --bar-teacher: #2c4f94; --bar-student: #86501d; --bar-other: #47515f; --here: #222934; --deep: #10151c;
  --c0: #76a5ff;
  --c1: #f59e57; --c2: #4ade80; --c3: #e879f9; --c4: #fcd34d; --c5: #22d3ee; --c6: #fb7185; --c7: #a3e635;
  --c8: #a78bfa; --c9: #a8a29e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
header p.run { color: var(--soft); margin: 0 0 .25rem; }
h1 { font-size: 1.5rem; line-height: 1.3; margin: 0 0 1rem; text-wrap: balance; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .75rem; }
h3 { font-size: .95rem; margin: 1.25rem 0 .5rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.25rem;
  margin-top: 1rem; }
p { margin: .5rem 0; overflow-wrap: anywhere; }
p.soft, .soft { color: var(--soft); }
ul { margin: .5rem 0; padding-left: 1.2rem; } li { margin: .2rem 0; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .75rem 1rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; color: var(--soft); font-weight: 500; } th, td { padding: .35rem .9rem .35rem 0;
  border-bottom: 1px solid var(--line); vertical-align: middle; } tbody tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.whole { white-space: nowrap; font-variant-numeric: tabular-nums; } tr.mark td { background: var(--mark); }
.tag { display: inline-block; font-size: .75rem; border: 1px solid currentColor; border-radius: 99px; padding: 0 .5rem;
  margin-left: .4rem; color: var(--soft); white-space: nowrap; } .tag.good { color: var(--good); }
.heat { display: block; text-align: right; padding: .1rem .4rem; border-radius: 4px; }
summary { cursor: pointer; color: var(--soft); } details { margin-top: .5rem; }
pre { overflow-x: auto; font-size: .82rem; line-height: 1.45; }
svg { display: block; width: 100%; height: auto; } svg.inline { width: 9.5rem; height: 1.2rem; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg .grid { stroke: var(--line); }
svg .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .dot { stroke: var(--card); stroke-width: 1.2; }
.teacher { stroke: var(--teacher); } .student { stroke: var(--student); stroke-dasharray: 5 3; }
svg .dot.teacher { fill: var(--teacher); } svg .dot.student { fill: var(--student); stroke-dasharray: none; }
svg .whisker { stroke: var(--soft); stroke-width: 1.5; } svg .point { fill: var(--ink); }
svg .point.best { fill: var(--good); } svg .guide { stroke: var(--good); stroke-dasharray: 2 3; }
.key { display: inline-block; width: 1.6rem; vertical-align: middle; margin: 0 .35rem 0 0; }
svg .curve:hover { stroke-width: 4; }
.class0 { stroke: var(--c0); } .class1 { stroke: var(--c1); } .class2 { stroke: var(--c2); }
.class3 { stroke: var(--c3); }
.class4 { stroke: var(--c4); } .class5 { stroke: var(--c5); } .class6 { stroke: var(--c6); }
.class7 { stroke: var(--c7); }
.class8 { stroke: var(--c8); } .class9 { stroke: var(--c9); }
.small { font-size: .85rem; } .keys { display: flex; flex-wrap: wrap; gap: .1rem .9rem; }
.key-name { white-space: nowrap; margin-left: .9rem; } .keys .key-name { margin-left: 0; }
.small-charts { grid-template-columns: repeat(auto-fill, minmax(min(14rem, 100%), 1fr)); margin-top: .75rem; }
svg .choice { fill: var(--soft); fill-opacity: .45; }
svg .choice.edge { fill: var(--card); fill-opacity: 1; stroke: var(--ink);
  stroke-width: 1.5; } svg .choice.best { fill: var(--good); fill-opacity: 1; stroke: var(--good); }
svg .edge-line { fill: none; stroke: var(--ink); stroke-width: 1.2; stroke-opacity: .55; }
svg .amount { fill: var(--line); } svg .ideal { stroke: var(--soft); stroke-dasharray: 3 3; fill: none; }
svg.matrix { max-width: 30rem; } svg .cells { fill: none; stroke: var(--line); }
svg .cell.right { fill: var(--good); } svg .cell.wrong { fill: var(--bad); }
svg text.cell-count { fill: var(--ink); font-variant-numeric: tabular-nums; } svg text.deep { fill: var(--deep); }
svg.timeline, svg.broad { min-width: 46rem; }
svg.many .curve { stroke-width: 1; stroke-opacity: .45; } svg.many .dot { stroke-width: .6; }
svg.many .curve:hover { stroke-width: 4; stroke-opacity: 1; }
 svg .here { fill: var(--here); } svg .bar.teacher { fill: var(--bar-teacher); }
svg .bar.student { fill: var(--bar-student); } svg .bar.other { fill: var(--bar-other); } svg .bar { stroke: none; }
svg text.on-bar { fill: var(--ink); font-size: 10px; pointer-events: none; }
svg .cross { stroke: var(--bad); stroke-width: 2.2; fill: none; } svg .cross.failed { stroke: var(--ink); }
svg .lost { stroke: var(--bad); stroke-width: 1.6; fill: none; }
svg .command { stroke: var(--soft); stroke-dasharray: 2 3; }
svg .move { fill: none; stroke: var(--ink); stroke-width: 1.4; } svg .move-end { fill: var(--ink); }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .9rem; }
figure { margin: 0; min-width: 0; } figcaption { font-size: .8rem; line-height: 1.35; margin-top: .3rem; }
figcaption span { display: block; overflow-wrap: anywhere; }
.bad { color: var(--bad); }
.frame { aspect-ratio: 1; background: var(--here); border-radius: 6px; overflow: hidden; display: flex; }
.frame img { width: 100%; height: 100%; object-fit: contain; }
@media print { section, .tile { break-inside: avoid; } }
"""
