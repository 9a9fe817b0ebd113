"""Dagster's daemon as `fmaudit ui` starts it: a backfill goes on five seconds after its last run ended, not thirty."""

from dagster._daemon import controller
from dagster._daemon.cli import main

#: seconds between two looks at the backfills; a constant of Dagster that no setting changes, whose version is pinned
BACKFILL_INTERVAL_S = 5

if __name__ == "__main__":
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = BACKFILL_INTERVAL_S
    main()
