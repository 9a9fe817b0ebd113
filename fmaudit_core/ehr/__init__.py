"""The medical record before each study: events (`source.py`) known before a cutoff (`cutoffs.py`) become features
(`features.py`).

What is counted, per study and code: `count_kernel.py`. Which codes are kept, and the matrix a probe takes: `design_matrix.py`.
"""
