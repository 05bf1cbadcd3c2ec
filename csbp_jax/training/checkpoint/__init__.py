"""Checkpoints: written in the background, verified by a manifest, on a disk or in a bucket."""
