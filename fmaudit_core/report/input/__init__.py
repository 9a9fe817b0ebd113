"""What the report reads, with the columns of each table."""
