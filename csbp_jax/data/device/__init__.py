"""Transforms of batches inside the compiled step: encoding, augmentation, mixing, resizing."""
