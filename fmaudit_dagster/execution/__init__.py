"""How steps are run: the command line's runner, sensors and schedules, Dagster's storage and run records."""
