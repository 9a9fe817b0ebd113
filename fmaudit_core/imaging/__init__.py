"""CT series as 8-bit slices: reading (`series.py`), windowing (`window.py`), and storage (`slices.py`)."""
