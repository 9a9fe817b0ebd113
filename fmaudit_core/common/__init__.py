"""Modules shared by all packages: root error, vocabulary of the tables, progress, worker processes, validation messages."""
