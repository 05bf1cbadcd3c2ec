"""Reading of PyTorch checkpoints without executing them: valid, hostile and damaged files."""

import pathlib
import pickle
import resource
import zipfile
from collections import OrderedDict
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.config import ConfigError
from csbp_jax.weights import torch_file, torch_pickle
from tests.support.torch_format import Call, Global, Tensor, write, write_parts

RELEASED = pathlib.Path(__file__).parents[1] / "data" / "released"
ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, jnp.bfloat16, np.int64])
def test_dtypes(dtype, tmp_path):
    values = np.array([[0, 1, -2], [3.0, 100, 7]], dtype)
    tensors, where = torch_file.read(write(tmp_path / "a.pth", {"a": values, "scalar": np.array(3, dtype)}))
    assert where == "" and tensors["a"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(tensors["a"], values)
    assert tensors["scalar"].shape == () and tensors["scalar"] == 3


def test_views_of_a_storage(tmp_path):
    row = np.arange(12, dtype=np.float32)
    views = {
        "transposed": Tensor(row, 0, (4, 3), (1, 4)),
        "later": Tensor(row, 7, (2,), (2,)),
        "repeated": Tensor(row, 5, (3, 2), (0, 1)),
        "none": Tensor(row, 12, (0, 4), (4, 1)),
    }
    tensors = torch_file.read(write(tmp_path / "a.pth", views)).tensors
    np.testing.assert_array_equal(tensors["transposed"], row.reshape(3, 4).T)
    np.testing.assert_array_equal(tensors["later"], [7, 9])
    np.testing.assert_array_equal(tensors["repeated"], [[5, 6]] * 3)
    assert tensors["none"].shape == (0, 4)
    assert not tensors["transposed"].flags.writeable


def test_state_dict_is_found_in_any_entry(tmp_path):
    def read(checkpoint):
        return torch_file.read(write(tmp_path / "a.pth", checkpoint))

    state, other = OrderedDict(weight=ARRAY), {"weight": 2 * ARRAY}
    moments = {"state": {0: {"momentum_buffer": ARRAY}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    assert read(state).where == ""
    assert read({"model": state, "optimizer": moments, "best": ARRAY}).where == "model"
    assert read({"weights": state, "epoch": 3}).where == "weights"
    assert read({"ema": other, "net": state}).tensors["weight"][1, 2] == 5
    assert list(read({"net": {"module.a": ARRAY, "module.b": ARRAY}}).tensors) == ["a", "b"]
    assert list(read({"module.a": ARRAY, "b": ARRAY}).tensors) == ["module.a", "b"]
    with pytest.raises(ConfigError, match="no state dict in it, not even a dictionary"):
        read([ARRAY])


def test_other_entries_beside_weights_are_ignored(tmp_path):
    state = Call(Global("collections", "OrderedDict"), (), {"_metadata": {"": {"version": 1}}})
    options = Call(Global("argparse", "Namespace"), (), {"lr": 0.1, "system": "x"})
    number = Call(Global("numpy.core.multiarray", "scalar"), (Call(Global("numpy", "dtype"), ("f8",), (3, "<")), "x"))
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (ARRAY, True, OrderedDict()))
    checkpoint = {"model": {"weight": parameter}, "args": options, "best": number, "more": state}
    tensors, where = torch_file.read(write(tmp_path / "a.pth", checkpoint))
    assert where == "model"
    np.testing.assert_array_equal(tensors["weight"], ARRAY)


NAMES = {
    "posix.system": b"\x80\x02cposix\nsystem\nX\x0b\x00\x00\x00touch owned\x85R.",
    "os.system": b"(S'touch owned'\nios\nsystem\n.",
    "builtins.eval": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x041 + 1\x85R.",
    "torch.load": b"\x80\x02ctorch\nload\n.",
    "collections.OrderedDict.fromkeys": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
    "functools.partial": b"\x80\x02cfunctools\npartial\n.",
    "models.CNN7": b"\x80\x02cmodels\nCNN7\n)\x81}b.",
}


# Pickles that set attributes of a known name.
ATTRIBUTES = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x08\x00\x00\x00__call__K\x01s\x86b.",
    b"\x80\x02ccollections\nOrderedDict\nN}X\x05\x00\x00\x00itemsK\x01s\x86b.",
    b"\x80\x02cargparse\nNamespace\nN}X\x07\x00\x00\x00__new__K\x01s\x86b.",
    b"\x80\x02ctorch\nFloatStorage\n}X\x01\x00\x00\x00xK\x01sb.",
)
# A tuple of twice a tuple of twice ..., sixty deep: hashing or printing it would take forever.
DEEP = b"\x80\x04)" + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(60))
HOSTILE = [
    *((data, f"a.pth: refers to {name}, which is not a tensor; nothing was executed") for name, data in NAMES.items()),
    *((data, "no state dict in it") for data in ATTRIBUTES),
    (DEEP + b"\x8c\x01x\x93.", "damaged"),
    (DEEP + b"Q.", "damaged"),
    (DEEP + b"\x94}h\x3cK\x01s.", "no state dict in it"),
    (b"\x80\x04(\x8c\x07storagectorch\nFloatStorage\n" + DEEP[2:] + b"\x8c\x03cpuK\x04tQ.", "damaged"),
]


@pytest.mark.parametrize("data, message", HOSTILE)
def test_a_hostile_file_executes_nothing_takes_no_time_and_does_not_change_the_reader(
    data, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        torch_file.read(write_parts("a.pth", data))
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]
    assert torch_file.read(write("b.pth", {"a": ARRAY})).tensors["a"].shape == (2, 3)


SHAPE_OF_TEXT: Any = ("2",)
FEW = np.zeros(4, np.float32)
INVALID = {
    "larger than the storage": Tensor(FEW, 0, (10**6, 10**6), (10**6, 1)),
    "begins behind it": Tensor(FEW, 4, (1,), (1,)),
    "goes backwards": Tensor(FEW, 3, (2,), (-1,)),
    "negative offset": Tensor(FEW, -1, (2,), (1,)),
    "negative shape": Tensor(FEW, 0, (-2,), (1,)),
    "no numbers": Tensor(FEW, 0, SHAPE_OF_TEXT, (1,)),
    "axes and steps": Tensor(FEW, 0, (2, 2), (1,)),
    "more elements than bytes": Tensor(FEW, 0, (4,), (1,), elements=10**12),
    "beyond 64 bits": Tensor(FEW, 0, (10**30,), (0,)),
}


@pytest.mark.parametrize("kind", INVALID)
def test_a_tensor_must_lie_within_its_storage(kind, tmp_path):
    with pytest.raises(ConfigError, match=r"a.pth: damaged \(.*\); fetch it again"):
        torch_file.read(write(tmp_path / "a.pth", {"a": INVALID[kind]}))


def test_small_files_cannot_request_much_memory(tmp_path):
    def refused(path, match):
        with pytest.raises(ConfigError, match=match):
            torch_file.read(path)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    zeros = {"a": np.zeros(10**6, np.float32)}
    refused(write(tmp_path / "a.pth", zeros, zipfile.ZIP_DEFLATED), "compressed, which torch.save never does")
    memo = b"\x80\x02}r\xff\xff\xff\x7f."
    refused(write_parts(tmp_path / "b.pth", memo), "no state dict in it")
    refused(write_parts(tmp_path / "c.pth", b"\x80\x04\x8e\xff\xff\xff\xff\x7f\x00\x00\x00."), "damaged")
    data = write(tmp_path / "d.pth", {"a": ARRAY}).read_bytes()
    central = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02"))
    (tmp_path / "d.pth").write_bytes(data[: central + 20] + b"\xff\xff\xff\x7f" * 2 + data[central + 28 :])
    refused(tmp_path / "d.pth", "claim to be larger than the file")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_small_files_cannot_request_many_copies(tmp_path):
    # OrderedDict of one list of a pair, three times.
    one = b"\x80\x02ccollections\nOrderedDict\nq\x00]X\x01\x00\x00\x00aK\x01\x86a\x85q\x01"
    data = one + b"h\x00h\x01R" * 3 + b"\x87."
    assert torch_pickle.unpickle(data, "a.pth") == ({"a": 1}, {}, {})
    with pytest.raises(ConfigError, match=r"a.pth: damaged \(.*'tuple'.*\); fetch it again"):  # which stays as it is
        torch_file.read(write_parts(tmp_path / "a.pth", b"\x80\x02ccollections\nOrderedDict\n)\x85R."))
    state = {"weight": ARRAY}
    path = write(tmp_path / "b.pth", {f"n{i}": state for i in range(100)})
    with mock.patch.object(torch_file, "_tensors", wraps=torch_file._tensors) as tensors:
        with pytest.raises(ConfigError, match="tensors in n0, n1"):
            torch_file.read(path)
        assert tensors.call_count == 1


def test_integers_of_one_hash_are_no_keys(tmp_path):
    assert hash(2**61 - 1) == hash(2**62 - 2) == 0
    data = pickle.dumps({"a": 1, 2**61 - 1: 2, 2**62 - 2: 3}, 2)
    assert torch_pickle.unpickle(data, "a.pth") == {"a": 1}
    with pytest.raises(ConfigError, match=r"a.pth: damaged \(PUT in its pickle\); fetch it again"):
        torch_file.read(write_parts(tmp_path / "a.pth", b"\x80\x02}p2305843009213693951\n."))


def test_files_of_other_versions(tmp_path):
    path = write(tmp_path / "a.pth", {"a": ARRAY})
    for content, message in (
        (path.read_bytes().replace(b"little", b"bigend"), "big-endian|damaged|cut short"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "written before PyTorch 1.6; .* torch.save"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            torch_file.read(path)


def test_damaged_files_raise_a_one_line_error(tmp_path):
    intact = (RELEASED / "csbp_cnn6_chaos.pth").read_bytes()
    path, generator, errors = tmp_path / "a.pth", np.random.default_rng(0), 0
    for trial in range(150):
        part = bytearray(intact)
        if trial % 3 == 0:
            del part[int(generator.integers(len(part))) :]
        else:
            for index in generator.integers(len(part), size=3):
                part[index] = generator.integers(256)
        path.write_bytes(part)
        try:
            torch_file.read(path)
        except ConfigError as error:
            errors += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert errors > 75


def test_members_that_would_begin_before_the_file_are_refused_in_one_line(tmp_path):
    """The end of the archive states where its directory begins, and all members move with it."""
    path = write(tmp_path / "a.pth", {"a": ARRAY})
    content = bytearray(path.read_bytes())
    field = content.rindex(b"PK\5\6") + 16
    start = int.from_bytes(content[field : field + 4], "little")
    content[field : field + 4] = (start + 10**6).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a.pth: (cannot be read|damaged|not a PyTorch) [^\n]*; .*fetch it again$"):
        torch_file.read(path)


def test_files_written_by_torch(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32)
    tensors = {
        "view": base.view(4, 6).T[1:],
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double().view(2, 3, 4).permute(2, 0, 1),
        "long": torch.tensor(7),
        "parameter": torch.nn.Parameter(base[3:]),
    }
    torch.save({"model": tensors, "size": base.shape, "device": base.device}, tmp_path / "a.pth")
    read = torch_file.read(tmp_path / "a.pth").tensors
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name].astype(np.float64), tensor.detach().double().numpy())
