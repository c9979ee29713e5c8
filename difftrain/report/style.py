"""How every picture of the report looks: one set of colours, no frame, SVG that needs nothing else.

Colours keep apart under the common kinds of colour blindness, and every arm has its own marker.
"""

from base64 import b64encode
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

STRATUM_COLOURS = {
    "easy": "#8cc5e3",
    "medium": "#2f78b4",
    "hard": "#d1542b",
    "unsolved": "#55585e",
    "unplaced": "#d5d5d5",
}
ARM_COLOURS = {"base": "#6f7278", "tuned": "#0b8068", "control": "#b5649b"}
ARM_MARKERS = {"base": "s", "tuned": "o", "control": "D"}
INK, FAINT, RULE = "#26282c", "#6b6f76", "#e3e4e6"

RULES: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "difftrain",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#a9acb1",
    "axes.labelcolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "xtick.color": "#a9acb1",
    "ytick.color": "#a9acb1",
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


UNSIGNED = {"Date": None, "Creator": None, "Format": None, "Type": None}
"""Nothing about the picture's making: no clock, and no addresses of vocabularies."""


def blank(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple:
    """A figure of so many inches and its axes [rows, columns]; no pyplot, so nothing is global."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def embedded(figure: Figure) -> str:
    """The figure as a data: address of an SVG, the same bytes for the same numbers."""
    buffer = BytesIO()
    with mpl.rc_context(RULES):
        figure.savefig(buffer, format="svg", transparent=True, metadata=UNSIGNED)
    return f"data:image/svg+xml;base64,{b64encode(buffer.getvalue()).decode()}"


def percent_axis(axes: Axes, which: str = "y", top: float = 1.0) -> None:
    """Fractions shown in percent, with light lines across."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.grid(axis="y" if which == "y" else "x")
    axes.set_axisbelow(True)
    if which == "y":
        axes.set_ylim(0, top)
