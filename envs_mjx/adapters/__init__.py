"""Doors for code written against other interfaces; each needs its own package, so import the one you want by name."""
