"""Numbers, verdicts, methods and recommendations in words."""
