"""Training a config: build, compile, loop, monitor, checkpoint."""
