"""The command line `fmaudit`: `main.py` puts it together, a module per group of commands. Heavy parts are imported inside."""
