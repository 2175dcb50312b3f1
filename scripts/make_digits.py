#!/usr/bin/env python3
"""Writes recipes/data/digits from scikit-learn's copy of the UCI handwritten digits (developers only; needs scikit-learn)."""
import pathlib

import numpy as np
from sklearn.datasets import load_digits

folder = pathlib.Path(__file__).resolve().parent.parent / "recipes" / "data" / "digits"
digits = load_digits()
images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
assert images.shape == (1797, 8, 8) and (images == digits.images).all() and images.max() == 16
test = np.arange(len(images)) % 5 == 4
names = np.array([str(digit) for digit in range(10)])
for split, rows in [("train", ~test), ("test", test)]:
    path = folder / f"digits-{split}.npz"
    np.savez_compressed(path, x=images[rows], y=labels[rows], class_names=names)
    print(f"{path.name}: {rows.sum()} images, {path.stat().st_size} bytes, {np.bincount(labels[rows]).tolist()} a class")
