"""The pickle of a PyTorch checkpoint: tensors as descriptions, and nothing else.

A tensor is written there as

    torch._utils._rebuild_tensor_v2(("storage", torch.FloatStorage, KEY, device, elements), offset, size, stride, ...)

That call, an ordered dictionary and the names of storages are all that is understood. Whatever else a pickle asks for
is refused by its name, before anything is imported. Source: torch/_utils.py.
"""

import io
import pickle
import pickletools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from csbp_jax.config import ConfigError

DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Common beside weights (options, accuracies, milestones), harmless, and not needed: nothing is made of them.
_LEFT_OUT = {
    "argparse.Namespace",
    "collections.Counter",
    "collections.defaultdict",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
    "__builtin__.set",
    "__builtin__.dict",
    "torch.Size",
    "torch.device",
}
MEND = "from a copy you trust, PyTorch makes one: torch.save(model.state_dict(), 'new.pth')"


class Storage(NamedTuple):
    kind: str
    key: str
    elements: int


class Tensor(NamedTuple):
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


# A pickle can call what it names, set attributes of it, and fill it. So each of these is immutable, or swallows all.
class _Dict(dict):
    __slots__ = ()

    def __setstate__(self, state):
        """A state dict's ``_metadata``."""


class _RebuildTensor:
    __slots__ = ()

    def __call__(self, storage, offset, shape, stride, *_):
        return Tensor(storage, offset, shape, stride)


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, tensor, *_):
        return tensor


class _LeftOut:
    __slots__ = ()

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def extend(self, items):
        pass


class _Unpickler(pickle.Unpickler):
    def __init__(self, data, path):
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "torch._utils._rebuild_tensor_v2":
            return _RebuildTensor()
        if full == "torch._utils._rebuild_parameter":
            return _RebuildParameter()
        if full == "collections.OrderedDict":
            return _Dict
        if module == "torch" and name in DTYPES:
            return name
        if full in _LEFT_OUT:
            return _LeftOut
        raise ConfigError(
            f"{self.path}: asks for {full}, which is no tensor; nothing of it was run. If it is a model or another "
            f"kind of tensor: {MEND}"
        )

    def persistent_load(self, pid: Any) -> Storage:
        _, kind, key, _, elements = pid
        return Storage(kind, key, elements)


def unpickle(data: bytes, path: Any) -> Any:
    """The object of a pickle, with :class:`Tensor` for each tensor.

    Raises:
      ConfigError: it asks for anything but tensors; names it.
      Exception: whatever damaged bytes make of it.
    """
    # A place in the memo is allocated as far as the number says.
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise ConfigError(f"{path}: damaged (place {argument} in the memo of a pickle); fetch it again")
    return _Unpickler(data, path).load()
