"""Verified checkpoints on a disk or in a bucket."""
