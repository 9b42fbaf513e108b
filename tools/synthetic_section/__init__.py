"""Draw synthetic H&E sections with simulated expression.

The package ships one of them (seed 7) as its sample section. Others train the bundled synthetic
checkpoint and serve as small slides in the tests.
"""

from .draw import GENE_WEIGHTS, SAMPLE_SEED, SIMULATION_NOTICE, SyntheticSection, draw_section
from .write import write_her2st_section

__all__ = [
    "GENE_WEIGHTS",
    "SAMPLE_SEED",
    "SIMULATION_NOTICE",
    "SyntheticSection",
    "draw_section",
    "write_her2st_section",
]
