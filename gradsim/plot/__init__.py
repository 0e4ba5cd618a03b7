"""Dataset -> matplotlib: each function takes what `gradsim.sweep` returned, draws it in one style, returns the Figure.

    phase_diagram       growth over two gains, with theory's lines       a sweep over two gains
    depth_profile       log gain against depth or time, as lines         a sweep over up to two axes
    scheme_map          log gain over depth or time, as a table          a sweep over two axes
    memory              gradient against the lag, and horizons           titles to backward sweeps over time
    recurrent_diagram   growth over two gains at several lengths         titles to sweeps over two gains and time
    layer_gradients     the weight gradient of each layer                titles to backward sweeps, a depth each
    gradient_records    gradient and update of each parameter            what `gradsim.gradient_records` returned
    inspection          gradients and outputs of a model's layers        what gradsim.inspect returned
    derivatives         why gradients vanish                             see scripts/derivatives.py
    save, new_figure    files, and an empty figure in the same style

Nothing is computed here beyond means, quantiles and the slope of a log gain against depth. Matplotlib is
imported when something is drawn, without pyplot and its global state.
"""

from gradsim.plot.gradients import gradient_records
from gradsim.plot.inspection import inspection
from gradsim.plot.layers import layer_gradients
from gradsim.plot.maps import phase_diagram
from gradsim.plot.memory import memory
from gradsim.plot.profiles import depth_profile, scheme_map
from gradsim.plot.recurrent import recurrent_diagram
from gradsim.plot.style import COLOURS, new_figure, save
from gradsim.plot.why import derivatives

__all__ = [
    "COLOURS",
    "depth_profile",
    "derivatives",
    "gradient_records",
    "inspection",
    "layer_gradients",
    "memory",
    "new_figure",
    "phase_diagram",
    "recurrent_diagram",
    "save",
    "scheme_map",
]
