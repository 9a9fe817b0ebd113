"""What every room may use: the root error, the words of the tables, progress, processes, messages of validation."""
