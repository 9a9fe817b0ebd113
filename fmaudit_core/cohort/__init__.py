"""Audited cohorts: validated tables (`schema.py`), readers (`table.py`), and the phantom cohort (`phantom/writer.py`)."""
