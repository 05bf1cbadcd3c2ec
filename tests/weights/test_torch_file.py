"""PyTorch checkpoints are read, and never run: bytes of the true format, hostile and damaged ones."""

import pathlib
import pickle
import resource
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.config import ConfigError
from csbp_jax.weights import torch_file
from tests.support.torch_format import Call, Global, Tensor, write, write_parts

RELEASED = pathlib.Path(__file__).parents[1] / "data" / "released"
ONE = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, jnp.bfloat16, np.int64])
def test_kinds_of_numbers(dtype, tmp_path):
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


def test_where_the_state_dict_may_be(tmp_path):
    def read(checkpoint):
        return torch_file.read(write(tmp_path / "a.pth", checkpoint))

    state, other = OrderedDict(weight=ONE), {"weight": 2 * ONE}
    moments = {"state": {0: {"momentum_buffer": ONE}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    assert read(state).where == ""
    assert read({"model": state, "optimizer": moments, "best": ONE}).where == "model"
    assert read({"weights": state, "epoch": 3}).where == "weights"
    assert read({"ema": other, "net": state}).tensors["weight"][1, 2] == 5
    assert list(read({"net": {"module.a": ONE, "module.b": ONE}}).tensors) == ["a", "b"]
    assert list(read({"module.a": ONE, "b": ONE}).tensors) == ["module.a", "b"]
    with pytest.raises(ConfigError, match="tensors in ema, old, and none of them is called model"):
        read({"ema": other, "old": state})
    with pytest.raises(ConfigError, match="no state dict in it, only epoch"):
        read({"epoch": 3})
    with pytest.raises(ConfigError, match="no state dict in it, no dictionary"):
        read([ONE])


def test_what_lies_beside_weights_is_left_out(tmp_path):
    state = Call(Global("collections", "OrderedDict"), (), {"_metadata": {"": {"version": 1}}})
    options = Call(Global("argparse", "Namespace"), (), {"lr": 0.1, "system": "x"})
    number = Call(Global("numpy.core.multiarray", "scalar"), (Call(Global("numpy", "dtype"), ("f8",), (3, "<")), "x"))
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (ONE, True, OrderedDict()))
    checkpoint = {"model": {"weight": parameter}, "args": options, "best": number, "more": state}
    tensors, where = torch_file.read(write(tmp_path / "a.pth", checkpoint))
    assert where == "model"
    np.testing.assert_array_equal(tensors["weight"], ONE)


HOSTILE = {
    "posix.system": b"\x80\x02cposix\nsystem\nX\x0b\x00\x00\x00touch owned\x85R.",
    "os.system": b"(S'touch owned'\nios\nsystem\n.",
    "builtins.eval": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x041 + 1\x85R.",
    "torch.load": b"\x80\x02ctorch\nload\n.",
    "collections.OrderedDict.fromkeys": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
    "functools.partial": b"\x80\x02cfunctools\npartial\n.",
    "models.CNN7": b"\x80\x02cmodels\nCNN7\n)\x81}b.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_tensor_is_refused_by_name_and_not_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"a.pth: asks for {name}, which is no tensor; nothing of it was run"):
        torch_file.read(write_parts("a.pth", HOSTILE[name]))
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_the_hostile_bytes_would_have_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = HOSTILE["posix.system"]
    assert pickle.loads(data) == 0 and (tmp_path / "owned").exists()
    (tmp_path / "owned").unlink()
    with pytest.raises(ConfigError, match=r"posix\.system"):
        torch_file.read(write_parts("a.pth", data))
    assert not (tmp_path / "owned").exists()


# Each sets attributes of something that is known by name.
@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x08\x00\x00\x00__call__K\x01s\x86b.",
        b"\x80\x02ccollections\nOrderedDict\nN}X\x05\x00\x00\x00itemsK\x01s\x86b.",
        b"\x80\x02cargparse\nNamespace\nN}X\x07\x00\x00\x00__new__K\x01s\x86b.",
        b"\x80\x02ctorch\nFloatStorage\n}X\x01\x00\x00\x00xK\x01sb.",
    ],
)
def test_a_pickle_changes_nothing_of_the_reader(data, tmp_path):
    with pytest.raises(ConfigError, match="no state dict in it"):
        torch_file.read(write_parts(tmp_path / "a.pth", data))
    assert torch_file.read(write(tmp_path / "b.pth", {"a": ONE})).tensors["a"].shape == (2, 3)


FEW = np.zeros(4, np.float32)
FALSE = {
    "larger than the storage": Tensor(FEW, 0, (10**6, 10**6), (10**6, 1)),
    "begins behind it": Tensor(FEW, 4, (1,), (1,)),
    "goes backwards": Tensor(FEW, 3, (2,), (-1,)),
    "negative offset": Tensor(FEW, -1, (2,), (1,)),
    "negative shape": Tensor(FEW, 0, (-2,), (1,)),
    "no numbers": Tensor(FEW, 0, ("2",), (1,)),
    "axes and steps": Tensor(FEW, 0, (2, 2), (1,)),
    "more elements than bytes": Tensor(FEW, 0, (4,), (1,), elements=10**12),
    "beyond 64 bits": Tensor(FEW, 0, (10**30,), (0,)),
}


@pytest.mark.parametrize("kind", FALSE)
def test_a_tensor_has_to_lie_in_its_storage(kind, tmp_path):
    with pytest.raises(ConfigError, match=r"a.pth: damaged \(.*\); fetch it again"):
        torch_file.read(write(tmp_path / "a.pth", {"a": FALSE[kind]}))


# A tuple of twice a tuple of twice ..., sixty deep: to hash or to print it would take for ever.
DEEP = b"\x80\x04)" + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(60))


@pytest.mark.parametrize(
    "data",
    [
        DEEP + b"\x8c\x01x\x93.",
        DEEP + b"Q.",
        DEEP + b"\x94}h\x3cK\x01s.",
        b"\x80\x04(\x8c\x07storagectorch\nFloatStorage\n" + DEEP[2:] + b"\x8c\x03cpuK\x04tQ.",
    ],
)
def test_few_bytes_cannot_ask_for_much_time(data, tmp_path):
    with pytest.raises(ConfigError, match=r"damaged|no state dict in it"):
        torch_file.read(write_parts(tmp_path / "a.pth", data))


def test_few_bytes_cannot_ask_for_much_memory(tmp_path):
    def refused(path, match):
        with pytest.raises(ConfigError, match=match):
            torch_file.read(path)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    zeros = {"a": np.zeros(10**6, np.float32)}
    refused(write(tmp_path / "a.pth", zeros, zipfile.ZIP_DEFLATED), "compressed, which torch.save never does")
    memo = b"\x80\x02}r\xff\xff\xff\x7f."
    refused(write_parts(tmp_path / "b.pth", memo), "no state dict in it")
    refused(write_parts(tmp_path / "c.pth", b"\x80\x04\x8e\xff\xff\xff\xff\x7f\x00\x00\x00."), "damaged")
    data = write(tmp_path / "d.pth", {"a": ONE}).read_bytes()
    central = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02"))
    (tmp_path / "d.pth").write_bytes(data[: central + 20] + b"\xff\xff\xff\x7f" * 2 + data[central + 28 :])
    refused(tmp_path / "d.pth", "claim to be larger than the file")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_other_files(tmp_path):
    path = tmp_path / "a.pth"

    def refused(content, match):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=match):
            torch_file.read(path)

    with pytest.raises(ConfigError, match=r"a.pth: there is no such file"):
        torch_file.read(path)
    with pytest.raises(ConfigError, match="there is no such file"):
        torch_file.read(tmp_path)
    refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS")
    refused(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "written before PyTorch 1.6; .* torch.save")
    refused(b"", "no PyTorch checkpoint, or cut short")
    refused(b"hello" * 100, "no PyTorch checkpoint, or cut short")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b", "c")
    refused(path.read_bytes(), "no data.pkl")
    write(path, {"a": ONE})
    refused(path.read_bytes().replace(b"little", b"bigend"), "big-endian|damaged|cut short")


def test_damage_is_told_in_one_line_wherever_it_is(tmp_path):
    whole = (RELEASED / "csbp_cnn6_chaos.pth").read_bytes()
    path, generator, told = tmp_path / "a.pth", np.random.default_rng(0), 0
    for trial in range(150):
        part = bytearray(whole)
        if trial % 3 == 0:
            del part[int(generator.integers(len(part))) :]
        else:
            for place in generator.integers(len(part), size=3):
                part[place] = generator.integers(256)
        path.write_bytes(part)
        try:
            torch_file.read(path)
        except ConfigError as error:
            told += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert told > 75


def test_what_torch_itself_writes(tmp_path):
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
