"""Image data sets: raw files to prepared records, and records to sources."""
