"""Event data sets: from recordings to frames of event counts, and from frames to data sources."""
