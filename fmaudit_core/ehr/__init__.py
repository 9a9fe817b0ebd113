"""Features (`features.py`) from the events of the medical record (`source.py`) that precede a study's cutoff (`cutoffs.py`).

`count_kernel.py` counts events per study and code. `design_matrix.py` selects columns and builds the matrix for probes.
"""
