"""A CT series becomes 8-bit slices: reading (`series.py`), windowing (`window.py`), keeping (`slices.py`)."""
