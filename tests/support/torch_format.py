"""Writer of files in the format of ``torch.save``, valid and invalid ones, without torch."""

import io
import pickle
import zipfile
from collections import OrderedDict
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

KINDS = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(jnp.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
}


class Global(NamedTuple):
    """A name in a module, written without importing it."""

    module: str
    name: str

    def __call__(self):
        """Make instances callable, as the pickler requires of functions."""


class Call(NamedTuple):
    function: Global
    arguments: tuple[Any, ...]
    state: Any = None


class Storage(NamedTuple):
    key: str
    kind: str
    elements: int


class Tensor(NamedTuple):
    """A tensor's description, valid or not; ``values [N]`` is its storage."""

    values: np.ndarray
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    elements: int | None = None


_PythonPickler: Any = pickle._Pickler  # type stubs omit the methods of the implementation in Python


class _Pickler(_PythonPickler):
    def __init__(self, file, storages):
        super().__init__(file, 2)
        self.storages, self.keys = storages, {}

    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", Global("torch", obj.kind), obj.key, "cpu", obj.elements)
        return None

    def reducer_override(self, obj):
        if isinstance(obj, np.ndarray):
            strides = tuple(step // obj.itemsize for step in np.ascontiguousarray(obj).strides) if obj.ndim else ()
            obj = Tensor(obj.reshape(-1), 0, obj.shape, strides)
        if isinstance(obj, Tensor):
            key = self.keys.setdefault(id(obj.values), str(len(self.keys)))
            self.storages[key] = obj.values
            elements = len(obj.values) if obj.elements is None else obj.elements
            storage = Storage(key, KINDS[obj.values.dtype], elements)
            arguments: tuple[Any, ...] = (storage, obj.offset, obj.shape, obj.stride, False, OrderedDict())
            return Global("torch._utils", "_rebuild_tensor_v2"), arguments
        if isinstance(obj, Call):
            return (obj.function, obj.arguments, obj.state)
        return NotImplemented

    def save_named(self, obj):
        self.write(f"c{obj.module}\n{obj.name}\n".encode())
        self.memoize(obj)

    dispatch = {**_PythonPickler.dispatch, Global: save_named}  # noqa: RUF012


def write(path, checkpoint, compression=zipfile.ZIP_STORED):
    """Write a checkpoint whose tensors are arrays or Tensors."""
    storages: dict[str, np.ndarray] = {}
    file = io.BytesIO()
    _Pickler(file, storages).dump(checkpoint)
    return write_parts(path, file.getvalue(), storages, compression)


def write_parts(path, data, storages=None, compression=zipfile.ZIP_STORED):
    """Write the archive of a pickle's bytes and of storages."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        for key, values in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", values.tobytes())
        archive.writestr("archive/version", "3\n")
    return path
