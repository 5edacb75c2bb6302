"""What the plots of several benchmarks have in common."""

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator


def hide_frame(axes: Axes) -> None:
    """Hides the upper and the right line around the plot."""
    axes.spines[["top", "right"]].set_visible(False)


def plain_log_ticks(axes: Axes) -> None:
    """Labels a logarithmic y axis with plain numbers at 1, 2 and 5 times the powers of ten."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
