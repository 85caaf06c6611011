"""The charts: plain SVG bars that follow the reader's colour scheme, on no background of their own."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from bench.figures import Figure, Results, digits, errors, figure, grown, growth_ratio, pick, ratio, usual_connections
from bench.load import BULK, GET, POST

WIDTH, GAP, LABEL, VALUE, ROW, HEAD = 880, 30, 165, 130, 24, 30
"""Pixels: the whole, between panels, a label, a value, a row's height, a title's height."""

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>{title}</title>
<style>
text {{ font: 13px system-ui, sans-serif; fill: #1f2328 }}
.title {{ font-weight: 600; font-size: 14px }}
.value {{ fill: #59636e }}
.ours {{ font-weight: 600; fill: #1f2328 }}
rect {{ fill: #b6bfc9 }}
rect.ours {{ fill: #0969da }}
rect.inner {{ fill: #7d8792 }}
rect.inner.ours {{ fill: #0a4b9c }}
@media (prefers-color-scheme: dark) {{
text, .ours {{ fill: #e6edf3 }}
.value {{ fill: #9da7b1 }}
.value.ours {{ fill: #e6edf3 }}
rect {{ fill: #59626c }}
rect.ours {{ fill: #4493f8 }}
rect.inner {{ fill: #8b949e }}
rect.inner.ours {{ fill: #a5d0ff }}
}}
</style>
{body}
</svg>
"""


class Bar(NamedTuple):
    """A value with its words; `inner` is a part of it that is told apart."""

    label: str
    value: float
    words: str
    ours: bool = False
    inner: float = 0


class Panel(NamedTuple):
    """Bars on one scale, which begins at zero."""

    title: str
    bars: Sequence[Bar]


def draw(results: Results, folder: Path) -> None:
    """Draw what was measured; a chart of which nothing was is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    charts = {
        "throughput": ("Requests per second: more is better", _throughput(results)),
        "latency": ("Latency: less is better", _latency(results)),
        "footprint": ("Footprint: less is better", _footprint(results)),
        "growth": ("Time of a request as the file grows: equal is best", _growth(results)),
    }
    for name, (title, panels) in charts.items():
        measured = [panel for panel in panels if panel.bars]
        if measured:
            (folder / f"{name}.svg").write_text(_svg(title, measured))


def _throughput(results: Results) -> Iterator[Panel]:
    connections = usual_connections(results)
    for request in (GET, POST):
        where = {"request": request, "connections": connections}
        ours = pick(results, "load", "rate", system="ours", **where)
        bars = []
        for key, system in results["systems"].items():
            rates = pick(results, "load", "rate", system=key, **where)
            found = figure(rates)
            if found:
                times = ratio(ours, rates) if key != "ours" else None
                words = digits(found.middle) + (f" · ours {_short(times)}" if times else "")
                words += " · ERRORS" if errors(results, "load", system=key, **where) else ""
                bars.append(Bar(system["name"], found.middle, words, key == "ours"))
        yield Panel(f"{request}, requests per second, {connections} connections", _sorted(bars, most_first=True))


def _latency(results: Results) -> Iterator[Panel]:
    connections = usual_connections(results)
    for request in (GET, POST):
        bars = []
        for key, system in results["systems"].items():
            where = {"system": key, "request": request, "connections": connections}
            half, tail = (figure(pick(results, "load", name, **where)) for name in ("p50", "p99"))
            if half and tail:
                words = f"{half.middle:.1f} · {tail.middle:.1f}"
                bars.append(Bar(system["name"], tail.middle, words, key == "ours", half.middle))
        yield Panel(f"{request}, {connections} connections: p50 · p99 in ms", _sorted(bars))


def _footprint(results: Results) -> Iterator[Panel]:
    for key, title, form in (
        ("memory", "Resident memory after start", "{:.0f} MB"),
        ("seconds", "Start to first answer", "{:.2f} s"),
    ):
        found = {name: figure(pick(results, "starts", key, system=name)) for name in results["systems"]}
        bars = [
            Bar(results["systems"][name]["name"], one.middle, form.format(one.middle), name == "ours")
            for name, one in found.items()
            if one
        ]
        yield Panel(title, _sorted(bars))


def _growth(results: Results) -> Iterator[Panel]:
    for request, connections in grown(results):
        bars = []
        for size in results["plan"]["sizes"]:
            where = {"request": request, "connections": connections, "size": size}
            times = growth_ratio(results, **where)
            rate = figure(pick(results, "growth", "rate", **where))
            if times and rate:
                words = f"{times.middle:.2f} × · {digits(1e6 / rate.middle)} µs"
                bars.append(Bar(f"{size:,}", times.middle, words, ours=True))
        how = "a row" if request == BULK else "alone" if connections == 1 else f"{connections} at once"
        yield Panel(f"{request}, {how}: time by enrollments", bars)


def _sorted(bars: Sequence[Bar], *, most_first: bool = False) -> list[Bar]:
    return sorted(bars, key=lambda bar: bar.value, reverse=most_first)


def _short(times: Figure) -> str:
    return f"{times.middle:.2f} ×" if times.middle < 10 else f"{times.middle:.0f} ×"


def _svg(title: str, panels: Sequence[Panel]) -> str:
    """Lay the panels out, two side by side."""
    wide = (WIDTH - GAP) // 2
    body, top, tallest = [], 0, 0
    for at, panel in enumerate(panels):
        if at % 2 == 0:
            top, tallest = top + tallest, 0
        tallest = max(tallest, HEAD + ROW * len(panel.bars) + GAP // 2)
        body += [f'<g transform="translate({at % 2 * (wide + GAP)} {top})">', *_panel(panel, wide), "</g>"]
    return SVG.format(width=WIDTH, height=top + tallest, title=escape(title), body="\n".join(body))


def _panel(panel: Panel, wide: int) -> Iterator[str]:
    scale = (wide - LABEL - VALUE) / max(bar.value for bar in panel.bars)
    yield f'<text class="title" y="16">{escape(panel.title)}</text>'
    for at, bar in enumerate(panel.bars):
        top = HEAD + at * ROW
        ours = " ours" if bar.ours else ""
        long = max(bar.value * scale, 1)
        yield f'<text class="label{ours}" x="{LABEL - 8}" y="{top + 13}" text-anchor="end">{escape(bar.label)}</text>'
        yield f'<rect class="bar{ours}" x="{LABEL}" y="{top}" width="{long:.1f}" height="{ROW - 6}" rx="2"/>'
        if bar.inner:
            inner = max(bar.inner * scale, 1)
            yield f'<rect class="inner{ours}" x="{LABEL}" y="{top}" width="{inner:.1f}" height="{ROW - 6}" rx="2"/>'
        yield f'<text class="value{ours}" x="{LABEL + long + 6:.1f}" y="{top + 13}">{escape(bar.words)}</text>'
