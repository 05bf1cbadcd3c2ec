"""Chaos of a set strength: z turned so that the local exponent follows a path."""
