"""`python -m fmaudit_dagster.cli`: the command line without its installed script."""

from fmaudit_dagster.cli.main import main

main(prog_name="fmaudit")
