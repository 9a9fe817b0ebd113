"""The INSPECT release as a cohort: files, tables, labels and demographics. Entry point: `reader.py`."""
