"""One audit on disk: its workspace, versions, stale and next steps, and a module per step that runs core on it."""
