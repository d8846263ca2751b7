"""How all plots look. Imported only where a plot is drawn: matplotlib is needed for nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench import machine
from bench.figures import Spread
from bench.results import Result

COLOURS = ("#0b6e99", "#d1495b", "#66a182", "#edae49", "#8d6a9f", "#5c5c5c")
"""Apart in lightness as well, so that they differ in grey."""

MARKERS = "osD^vP"

_DPI = 150


def figure(panels: int = 1, *, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side, in `rows` rows."""
    columns = -(-panels // rows)
    drawn = Figure(figsize=(7.2 if columns == 1 else 5.6 * columns, 4.4 * rows), layout="constrained")
    axes = [drawn.add_subplot(rows, columns, panel + 1) for panel in range(panels)]
    for one in axes:
        one.grid(visible=True, color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return drawn, axes


def line(axes: Axes, x: Sequence[float], y: Sequence[Spread], label: str, index: int, style: str = "-") -> None:
    """Medians, with error bars from the least to the greatest."""
    axes.errorbar(
        x,
        [one["median"] for one in y],
        yerr=_errors(y),
        label=label,
        color=COLOURS[index % len(COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
        linestyle=style,
        markersize=5,
        linewidth=1.6,
        capsize=3,
    )


def bars(axes: Axes, names: Sequence[str], groups: Mapping[str, Sequence[Spread]], unit: str = "{:,.0f}") -> None:
    """A group of bars for each name, with error bars, and the medians written above them."""
    width = 0.8 / len(groups)
    for index, (label, values) in enumerate(groups.items()):
        places = [place + (index - (len(groups) - 1) / 2) * width for place in range(len(names))]
        heights = [one["median"] for one in values]
        colour = COLOURS[index % len(COLOURS)]
        axes.bar(places, heights, width * 0.92, yerr=_errors(values), label=label, color=colour, capsize=3)
        for place, one in zip(places, values, strict=True):
            at = (place, one["max"])
            text = unit.format(one["median"])
            axes.annotate(text, at, (0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(names)), names)
    axes.margins(y=0.12)


def legend_below(*axes: Axes) -> None:
    """One legend for axes that share a panel, where it covers nothing."""
    handles, labels = [], []
    for one in axes:
        more_handles, more_labels = one.get_legend_handles_labels()
        handles += more_handles
        labels += more_labels
    place = (0.5, -0.14)
    axes[0].legend(handles, labels, loc="upper center", bbox_to_anchor=place, ncols=2, fontsize=7, frameon=False)


def thousands(axes: Axes) -> None:
    """Rates on the y axis: 250 k, 1.5 M."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def log_x(axes: Axes, ticks: Sequence[float], pattern: str | None = None) -> None:
    """A logarithmic x axis, with these values named."""
    axes.set_xscale("log")
    axes.set_xticks(ticks, [short(tick) if pattern is None else pattern.format(tick) for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def save(drawn: Figure, path: Path, title: str, result: Result) -> None:
    """Add the title, and the machine in small print, and write the file."""
    drawn.suptitle(title, fontsize=12)
    drawn.supxlabel(machine.caption(result["machine"]), fontsize=6.5, color="#666666")
    drawn.savefig(path, dpi=_DPI)


def _errors(values: Sequence[Spread]) -> list[list[float]]:
    return [[one["median"] - one["min"] for one in values], [one["max"] - one["median"] for one in values]]
