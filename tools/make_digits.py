"""Make ``csbp_jax/data/digits.npz`` and its split from scikit-learn's copy of the UCI optical digits.

    pip install scikit-learn && python tools/make_digits.py

Writes the 1797 pictures (8x8, grey values 0 to 16) with their labels, and ``digits_split.json``: the indices of a
stratified split, 70 % train, 10 % validation, 20 % test of each class, drawn once with seed 0. Both are committed, so
only this script needs scikit-learn.
"""

import json
import pathlib

import numpy as np
from sklearn.datasets import load_digits

FOLDER = pathlib.Path(__file__).parent.parent / "csbp_jax" / "data"

digits = load_digits()
np.savez_compressed(FOLDER / "digits.npz", x=digits.images.astype(np.uint8), y=digits.target.astype(np.uint8))

rng = np.random.default_rng(0)
split: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
for label in range(10):
    members = rng.permutation(np.flatnonzero(digits.target == label))
    ends = np.round(np.array([0.7, 0.8]) * len(members)).astype(int)
    for name, part in zip(split, np.split(members, ends), strict=True):
        split[name] += part.tolist()
(FOLDER / "digits_split.json").write_text(json.dumps({name: sorted(part) for name, part in split.items()}) + "\n")
