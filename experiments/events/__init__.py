"""The study of docs/results/events: a small network that overfits recordings of events, at the released settings."""
