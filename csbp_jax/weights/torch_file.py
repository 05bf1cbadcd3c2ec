"""PyTorch checkpoints as NumPy arrays, without torch and without executing anything from the file.

``torch.save`` (since PyTorch 1.6) writes a zip archive of uncompressed members: ``NAME/data.pkl``, a pickle, and
``NAME/data/KEY``, the bytes of each storage. torch_pickle.py reads the former.
Source: torch/serialization.py.
"""

import os
import zipfile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError, one_line
from csbp_jax.runtime import files
from csbp_jax.weights import torch_pickle

_WRAPPERS = ("model", "net", "state_dict", "model_state_dict")


class StateDict(NamedTuple):
    """Tensors of a checkpoint.

    tensors: read-only arrays by key; where: the entry of the file that held them, empty for the file itself.
    """

    tensors: dict[str, NDArray[Any]]
    where: str


def read(path: str | os.PathLike[str]) -> StateDict:
    """Read the state dict of a checkpoint, its keys without the ``module.`` of ``DataParallel``.

    It is the whole file, or the only entry of it that holds tensors by name, or that of several which is called
    ``model``, ``net``, ``state_dict`` or ``model_state_dict``. Memory: the bytes of its storages, once.

    Raises:
      ConfigError: no such file, or it is damaged, in another format, refers to anything but tensors, or holds no state
        dict.
    """
    files.check(path)
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive, path)
            entry, tensors = _state_dict(torch_pickle.unpickle(archive.read(f"{root}data.pkl"), path), path)
            storages: dict[str, NDArray[Any]] = {}
            arrays = {key: _array(archive, root, storages, tensor) for key, tensor in tensors.items()}
    except ConfigError:
        raise
    except OSError as error:  # of the disk, or where a damaged directory of the archive points before its start
        raise ConfigError(f"{path}: cannot be read ({one_line(error)}); check the file, or fetch it again") from None
    except zipfile.BadZipFile as error:
        raise ConfigError(f"{path}: {_not_a_zip(path, error)}") from None
    except Exception as error:  # damaged bytes make zipfile, pickle and numpy raise nearly anything
        raise ConfigError(f"{path}: damaged ({one_line(error)}); fetch it again") from None
    prefix = "module." if all(key.startswith("module.") for key in arrays) else ""
    return StateDict({key.removeprefix(prefix): array for key, array in arrays.items()}, entry)


def _not_a_zip(path: str | os.PathLike[str], error: Exception) -> str:
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself; fetch it with git lfs pull"
    if head.startswith(b"\x80"):
        return (
            "written before PyTorch 1.6; if you trust it, convert it: "
            "torch.save(torch.load(old, map_location='cpu', weights_only=True), new)"
        )
    return f"not a PyTorch checkpoint, or cut short ({one_line(error)}); fetch it again"


def _root(archive: zipfile.ZipFile, path: str | os.PathLike[str]) -> str:
    """Return the prefix ``NAME/`` of the members.

    Declared sizes must fit in the file, so that a few bytes cannot request much memory.
    """
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ConfigError(f"{path}: its members are compressed, which torch.save never does; {torch_pickle.REMEDY}")
    if sum(member.file_size for member in members) > os.path.getsize(path):
        raise ConfigError(f"{path}: its members claim to be larger than the file; fetch it again")
    names = {member.filename for member in members}
    roots = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ConfigError(f"{path}: a zip archive, but not a PyTorch checkpoint (no data.pkl); {torch_pickle.REMEDY}")
    if f"{roots[0]}byteorder" in names and archive.read(f"{roots[0]}byteorder") != b"little":
        raise ConfigError(f"{path}: written on a big-endian machine, which is not supported; {torch_pickle.REMEDY}")
    return roots[0]


def _state_dict(checkpoint: Any, path: str | os.PathLike[str]) -> tuple[str, dict[str, torch_pickle.Tensor]]:
    """Return the entry of the checkpoint that is the state dict, and its tensors."""
    entries = checkpoint.items() if isinstance(checkpoint, dict) else ()
    # A small file can name one large dictionary many times: its tensors are listed once.
    listed = {key: _tensors(value) for key, value in {id(value): value for _, value in entries}.items()}
    nested = {name: tensors for name, value in entries if (tensors := listed[id(value)])}
    known = [name for name in _WRAPPERS if name in nested]
    if len(nested) == 1 or known:
        name = known[0] if known else next(iter(nested))
        return name, nested[name]
    if nested:
        raise ConfigError(
            f"{path}: tensors in {', '.join(nested)}, and none of them is called {' or '.join(_WRAPPERS)}; "
            "save the right one alone"
        )
    if tensors := _tensors(checkpoint):
        return "", tensors
    content = f"only {', '.join(map(str, list(checkpoint)[:5]))}" if entries else "not even a dictionary of texts"
    raise ConfigError(f"{path}: no state dict in it, {content}; {torch_pickle.REMEDY}")


def _tensors(value: Any) -> dict[str, torch_pickle.Tensor]:
    entries = value.items() if isinstance(value, dict) else ()
    return {key: entry for key, entry in entries if isinstance(entry, torch_pickle.Tensor)}


def _array(
    archive: zipfile.ZipFile, root: str, storages: dict[str, NDArray[Any]], tensor: torch_pickle.Tensor
) -> NDArray[Any]:
    """Return a view of the tensor's storage, which is read once."""
    storage, offset, shape, stride = tensor
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *stride)):
        raise ValueError("a tensor whose shape is not integers")
    dtype = np.dtype(torch_pickle.DTYPES[storage.kind])
    if storage.key not in storages:
        storages[storage.key] = np.frombuffer(archive.read(f"{root}data/{storage.key}"), dtype)
    flat = storages[storage.key]
    if flat.dtype != dtype or storage.elements != len(flat):
        raise ValueError(f"a storage of {len(flat)} {flat.dtype} where {storage.elements} {dtype} are declared")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if 0 not in shape and last >= len(flat):
        raise ValueError(f"a tensor that ends at {last}, beyond its storage of {len(flat)}")
    strides = [step * flat.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, strides, writeable=False)
