"""Other people's tables, read by scans: OMOP, MEDS, archives, text cells."""
