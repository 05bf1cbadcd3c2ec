"""Writers of the original byte formats of CIFAR, MNIST, ImageNet and tfrecord, independent of the readers."""

import gzip
import io
import json
import pathlib
import struct
import tarfile
import zipfile

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n15075141")  # the first two and the last class


def quiet(stage, done, total):
    """Shows no progress of a preparation, which is never beyond its end."""
    assert 0 <= done <= total or total == 0


def saved(save, *content, **options):
    """The bytes that ``save(file, *content)`` writes, such as ``numpy.save``."""
    file = io.BytesIO()
    save(file, *content, **options)
    return file.getvalue()


def encoded(pixels, form="JPEG", **options):
    """Encode a picture [H, W, 3] or [H, W]."""
    return saved(Image.fromarray(pixels).save, form, **options)


def cmyk(pixels):
    """Encode a picture [H, W, 3] as a CMYK JPEG."""
    return saved(Image.fromarray(pixels).convert("CMYK").save, "JPEG", quality=95)


def photo(seed, height=60, width=80):
    """A picture of smooth colours, which JPEG preserves well."""
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + phase[0]), np.cos(y / 7 + phase[1]), np.sin((x + y) / 13 + phase[2])]
    return (128 + 100 * np.stack(waves, -1)).astype(np.uint8)


def tarred(files, mode="w:gz"):
    """A tar of ``{name: bytes}``; a TarInfo is added unchanged."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return file.getvalue()


def tar(path, files, mode="w"):
    path.write_bytes(tarred(files, mode))


def zipped(files):
    """A zip of ``{name: content}``, in this order."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def cifar10(folder, per_file=20, **replaced):
    """Write cifar-10-binary.tar.gz; return pictures [6 per_file, 32, 32, 3] and labels, the last per_file for test.

    ``replaced`` has other contents of its files, or None to leave one out, with __ for the dot of a name.
    """
    x, y = _pictures(6 * per_file, 10)
    rows = np.concatenate([y[:, None], x.transpose(0, 3, 1, 2).reshape(len(x), -1)], 1)
    names = [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]
    files = {name: chunk.tobytes() for name, chunk in zip(names, np.split(rows, 6), strict=True)}
    files["batches.meta.txt"] = "".join(f"class{n}\n" for n in range(10)).encode() + b"\n"
    files |= {name.replace("__", "."): content for name, content in replaced.items()}
    files = {f"cifar-10-batches-bin/{name}": content for name, content in files.items() if content is not None}
    tar(folder / "cifar-10-binary.tar.gz", files, "w:gz")
    return x, y


def cifar100(folder, train=200, test=100):
    """Write cifar-100-binary.tar.gz; return pictures, fine and coarse labels, the last ``test`` of them for test."""
    x, fine = _pictures(train + test, 100)
    coarse = fine // 5
    rows = np.concatenate([coarse[:, None], fine[:, None], x.transpose(0, 3, 1, 2).reshape(len(x), -1)], 1)
    files = {
        "train.bin": rows[:train].tobytes(),
        "test.bin": rows[train:].tobytes(),
        "fine_label_names.txt": "".join(f"fine{n}\n" for n in range(100)).encode(),
        "coarse_label_names.txt": "".join(f"coarse{n}\n" for n in range(20)).encode(),
    }
    tar(folder / "cifar-100-binary.tar.gz", {f"cifar-100-binary/{n}": c for n, c in files.items()}, "w:gz")
    return x, fine, coarse


def mnist(folder, train=60, test=30, pack=True):
    """Write the four IDX files of MNIST or Fashion-MNIST; return pictures [N, 28, 28, 1] and labels, test last."""
    x, y = _pictures(train + test, 10, (28, 28, 1))
    for stem, rows in (("train", slice(train)), ("t10k", slice(train, None))):
        idx(folder / f"{stem}-images-idx3-ubyte", x[rows, ..., 0], pack)
        idx(folder / f"{stem}-labels-idx1-ubyte", y[rows], pack)
    return x, y


def idx(path, array, pack=True):
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    if pack:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def _pictures(count, classes, shape=(32, 32, 3)):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, *shape), np.uint8), (np.arange(count) % classes).astype(np.uint8)


def imagenet(folder, train=None, validation=None):
    """Write ILSVRC2012_img_train.tar, a tar of tars, and ILSVRC2012_img_val.tar, from ``{name: bytes}``."""
    if train is None:
        train = {f"{wnid}_{n}.JPEG": encoded(photo(n), quality=95) for wnid in WNIDS for n in range(4)}
    if validation is None:
        validation = {f"ILSVRC2012_val_{n:08d}.JPEG": encoded(photo(n), quality=95) for n in (3, 1, 2)}
    inner = {}
    for wnid in dict.fromkeys(name.split("_")[0] for name in train):
        tar(folder / "inner", {name: content for name, content in train.items() if name.startswith(wnid)})
        inner[f"{wnid}.tar"] = (folder / "inner").read_bytes()
    (folder / "inner").unlink(missing_ok=True)
    tar(folder / "ILSVRC2012_img_train.tar", inner)
    tar(folder / "ILSVRC2012_img_val.tar", validation)
    return train, validation


def tfrecords(source, target, change=lambda payload: payload):
    """Convert a TensorFlow Datasets directory from array_record to tfrecord, with changed payloads."""
    target.mkdir(parents=True)
    for file in pathlib.Path(source).iterdir():
        if ".array_record-" in file.name:
            reader = ArrayRecordReader(str(file))
            payloads = [change(reader.read([i])[0]) for i in range(reader.num_records())]
            shard = target / file.name.replace(".array_record-", ".tfrecord-")
            shard.write_bytes(b"".join(map(_framed, payloads)))
        elif file.name == "dataset_info.json":
            info = json.loads(file.read_text()) | {"fileFormat": "tfrecord"}
            (target / file.name).write_text(json.dumps(info))
        elif file.suffix in (".json", ".txt"):
            (target / file.name).write_bytes(file.read_bytes())


def _framed(payload):
    length = struct.pack("<Q", len(payload))
    return length + _masked(length) + payload + _masked(payload)


def _masked(data):
    crc = bitwise_crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def bitwise_crc32c(data):
    """CRC-32C by its definition, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
