"""The Dagster platform around `fmaudit_core`: assets, checks, automation and the command line."""
