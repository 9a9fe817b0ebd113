"""What the audit says to people: one self-contained page, and the same tables for machines. Statistics: `fairness/`."""
