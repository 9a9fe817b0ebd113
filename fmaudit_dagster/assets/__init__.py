"""The asset graph, a module per group: from studies to the report."""
