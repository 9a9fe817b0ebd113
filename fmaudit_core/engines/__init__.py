"""Engines: where slices are read and encoded. Each makes the same shards, so the tables do not depend on the engine."""
