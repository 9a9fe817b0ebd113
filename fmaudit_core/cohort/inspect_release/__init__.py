"""The INSPECT release as a cohort (`reader.py`): its files, tables, labels and demographics."""
