"""The commands of `fmaudit`, a module per reason to change; `cli.py` puts them together. Heavy parts are imported inside."""
