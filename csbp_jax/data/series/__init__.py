"""Published time series."""
