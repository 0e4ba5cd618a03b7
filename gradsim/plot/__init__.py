"""Dataset -> matplotlib: each function takes a Dataset, draws it in one style, and returns the Figure.

Nothing is computed here beyond means, quantiles and the slope of a log gain against depth. Matplotlib is
imported when something is drawn, without pyplot and its global state.
"""

from gradsim.plot.maps import phase_diagram
from gradsim.plot.profiles import depth_profile, scheme_map
from gradsim.plot.style import COLOURS, new_figure, save
from gradsim.plot.why import derivatives

__all__ = ["COLOURS", "depth_profile", "derivatives", "new_figure", "phase_diagram", "save", "scheme_map"]
