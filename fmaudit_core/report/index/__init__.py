"""The disclosed tables, looked up by score set, encoder and task."""
