"""Charts and tables without a network: SVG drawn here, and a vendored uPlot 1.6.32 (MIT) for pages that come alive.

Whatever stands in a page stands in its own files: no style and no script inside the markup, so the strictest content
security policy holds.
"""

from perfkit.charts.flame import flame_graph
from perfkit.charts.svg import Line, line_chart
from perfkit.charts.table import aligned, harmless

__all__ = ["Line", "aligned", "flame_graph", "harmless", "line_chart"]
