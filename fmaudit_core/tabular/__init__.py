"""Third-party tables, read by lazy scans: OMOP, MEDS, archives, text cells."""
