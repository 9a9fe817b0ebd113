"""What may be shown: small groups, their neighbours, intersections. Everything later reads its tables only."""
