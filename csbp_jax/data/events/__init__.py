"""Event data sets: recordings to frames of event counts, and frames to sources."""
