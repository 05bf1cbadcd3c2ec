"""Transforms inside the training step: encode, augment, mix, resize."""
