"""Draws plots as SVG. Pure: numbers in, text out."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import NamedTuple

_FONT = 'font-family="DejaVu Sans, Verdana, sans-serif" font-size="12"'
_COLORS = ("#37352f", "#9b9a97", "#0b6e99", "#d9730d", "#0f7b6c", "#ad1a72", "#6940a5", "#8f6b32", "#dfab01", "#e03e3e")
_GREY, _FAINT = "#64605a", "#e3e2e0"
_ROW = 24
_LABELS = 220  # the width for names on the left, and for those behind the ends of lines


class Span(NamedTuple):
    """A name, and two values."""

    name: str
    low: float
    high: float


def bars(title: str, panels: Mapping[str, Mapping[str, tuple[float, str]]]) -> str:
    """Panels side by side, each with a bar for each name; a value comes with what to write behind its bar."""
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    width, gap = 190, 20
    total = _LABELS + len(panels) * (width + gap)
    height = 64 + len(names) * _ROW + 8
    drawn = [_text(12, 22, title, weight="bold")]
    drawn += [_text(_LABELS - 10, 64 + row * _ROW + 12, name, "end") for row, name in enumerate(names)]
    for number, (heading, panel) in enumerate(panels.items()):
        left = _LABELS + number * (width + gap)
        most = max(value for value, _ in panel.values())
        drawn.append(_text(left, 50, heading, color=_GREY))
        drawn.append(_line(left, 58, left, height - 8, _GREY))
        for row, name in enumerate(names):
            if name in panel:
                value, behind = panel[name]
                length = max(1, (width - 80) * value / most)
                drawn.append(_rectangle(left, 64 + row * _ROW, length, _ROW - 8, _color(row)))
                drawn.append(_text(left + length + 5, 64 + row * _ROW + 12, behind, color=_GREY))
    return _svg(total, height, drawn)


def spans(title: str, rows: Sequence[Span], write: Callable[[float], str]) -> str:
    """A row for each name, with a line from its low to its high value, on a logarithmic axis."""
    width = 560
    height = 50 + len(rows) * _ROW + 30
    axis = _Axis([value for row in rows for value in (row.low, row.high)], _LABELS, _LABELS + width)
    drawn = [_text(12, 22, title, weight="bold")]
    for tick in axis.ticks():
        drawn.append(_line(axis.at(tick), 40, axis.at(tick), height - 26, _FAINT))
        drawn.append(_text(axis.at(tick), height - 10, write(tick), "middle", _GREY))
    for number, row in enumerate(rows):
        y = 50 + number * _ROW + 6
        drawn.append(_text(_LABELS - 10, y + 4, row.name, "end"))
        drawn.append(_line(axis.at(row.low), y, axis.at(row.high), y, _color(number), 2))
        drawn.append(_circle(axis.at(row.low), y, 5, _color(number)))
        drawn.append(_circle(axis.at(row.high), y, 3, _color(number)))
    return _svg(_LABELS + width + 40, height, drawn)


def lines(
    title: str,
    series: Mapping[str, Mapping[float, float]],
    write_x: Callable[[float], str],
    write_y: Callable[[float], str],
) -> str:
    """A line for each name, from x to y, on logarithmic axes; the names are at the lines' ends."""
    left, top, width, height = 70, 44, 520, 300
    every_x = sorted({x for points in series.values() for x in points})
    across = _Axis(every_x, left, left + width, whole=False)
    up = _Axis([y for points in series.values() for y in points.values()], top + height, top)
    drawn = [_text(12, 22, title, weight="bold")]
    for tick in up.ticks():
        drawn.append(_line(left, up.at(tick), left + width, up.at(tick), _FAINT))
        drawn.append(_text(left - 8, up.at(tick) + 4, write_y(tick), "end", _GREY))
    drawn += [_text(across.at(x), top + height + 20, write_x(x), "middle", _GREY) for x in every_x]
    wanted = {name: up.at(points[max(points)]) for name, points in series.items()}
    places = _apart(wanted)
    for number, (name, points) in enumerate(series.items()):
        path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in sorted(points.items()))
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{_color(number)}" stroke-width="2"/>')
        drawn += [_circle(across.at(x), up.at(y), 3, _color(number)) for x, y in points.items()]
        drawn.append(_text(left + width + 12, places[name] + 4, name, color=_color(number)))
    return _svg(left + width + _LABELS, top + height + 36, drawn)


class _Axis:
    """A logarithmic axis; one that is `whole` goes from a power of ten to another."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, whole: bool = True) -> None:
        self._low, self._high = math.log10(min(values)), math.log10(max(values))
        if whole:
            self._low, self._high = math.floor(self._low), math.floor(self._high) + 1
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(math.ceil(self._low), math.floor(self._high) + 1)]


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """The places, moved down where names would lie over each other."""
    moved: dict[str, float] = {}
    last = -math.inf
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        last = moved[name] = max(place, last + 16)
    return moved


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _text(x: float, y: float, text: str, anchor: str = "start", color: str = "#1f1e1d", weight: str = "normal") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{color}" font-weight="{weight}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{color}" stroke-width="{width}"/>'


def _rectangle(x: float, y: float, width: float, height: float, color: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'


def _circle(x: float, y: float, radius: float, color: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}"/>'


def _svg(width: float, height: float, drawn: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {_FONT}>'
    return "\n".join([head, _rectangle(0, 0, width, height, "#ffffff"), *drawn, "</svg>\n"])
