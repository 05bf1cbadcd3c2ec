"""What a user types or a file holds is refused in one line that names what to change, with its exit code."""

import gzip
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from csbp_jax.cli import main
from tests.support import event_formats, formats, torch_format
from tests.support.rows import full

TINY = "digits --epochs 2 --batch-size 64 --checkpoint-every 1 --model.features 4 8 --model.time-steps 3"
AGAIN = f"train {TINY} --name r1 --runs ."
OWN = """import numpy as np
from csbp_jax.config import Chaos, Config, Model

config = Config(batch_size=8, model=Model(name="dense", input_shape=(), classes=0, time_steps=2, features=(4,)))
x, y = np.random.default_rng(0).random((40, 2, 3)), np.arange(40) % 2


def data(config, data_dir):
    return {"train": (x, y), "test": (x, y)}


"""
DENSE = "evaluate digits --model.name dense --model.features 4 --chaos.taps --chaos.z0 0 --weights a.pt"


def nothing(trained):
    """Leave the working directory empty."""


def run(trained):
    """A run in r1."""
    shutil.copytree(trained, "r1")


def unfinished(trained):
    """A run in r1 without its result, which training resumes."""
    run(trained)
    os.remove("r1/result.json")


def damaged(path, start=run):
    """The first half of a file of the run."""

    def prepare(trained):
        start(trained)
        content = pathlib.Path(path).read_bytes()
        pathlib.Path(path).write_bytes(content[: len(content) // 2])

    return prepare


def edited(path, **fields):
    """A JSON file of the run with other values, as a person writes it: without its seal."""

    def prepare(trained):
        run(trained)
        content = json.loads(pathlib.Path(path).read_text())
        content.pop("sha256", None)
        for name, value in fields.items():
            *sections, last = name.split("__")
            section = content
            for key in sections:
                section = section[key]
            section[last] = value
        pathlib.Path(path).write_text(json.dumps(content))

    return prepare


def replaced(path, make, start=run):
    """Something else in the place of a file of the run."""

    def prepare(trained):
        start(trained)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        make(path)

    return prepare


def no_checkpoint_intact(trained):
    unfinished(trained)
    for manifest in pathlib.Path("r1/checkpoints").glob("*/manifest.json"):
        manifest.write_text("{")


def numbered_otherwise(trained):
    """Metrics whose rows were edited under their seal."""
    unfinished(trained)
    file = pathlib.Path("r1/metrics.jsonl")
    file.write_text(file.read_text().replace('"epoch": 1', '"epoch": 9'))


def two_runs(result):
    """Runs of two seeds, the second with a value in its result."""

    def prepare(trained):
        edited("r1/config.json", config__seed=1)(trained)
        shutil.move("r1", "r2")
        edited("r1/result.json", last=result)(trained)

    return prepare


def picture(trained):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("x.png")


def cut_picture(trained):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save("x.png")
    content = pathlib.Path("x.png").read_bytes()
    pathlib.Path("x.png").write_bytes(content[: len(content) // 2])


def array(values):
    return lambda trained: np.save("x.npy", values)


def vast_array(trained):
    """A header that declares terabytes."""
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}".ljust(118)
    pathlib.Path("x.npy").write_bytes(b"\x93NUMPY\1\0v\0" + head)


def pictures(*others):
    """Eight pictures in each of the folders a and b; and other files."""

    def prepare(trained):
        for i in range(16):
            file = pathlib.Path(f"pictures/{'ab'[i % 2]}/{i}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 10 * i, np.uint8)).save(file)
        for other in others:
            other()

    return prepare


def mnist(trained):
    os.makedirs("raw")
    formats.mnist(pathlib.Path("raw"))


def mnist_of_eleven_classes(trained):
    mnist(trained)
    labels = gzip.compress(b"\0\0\x08\x01\0\0\0\x3c" + bytes([10] * 60))
    pathlib.Path("raw/train-labels-idx1-ubyte.gz").write_bytes(labels)


def zip_that_leads_outside(trained):
    os.makedirs("raw")
    event_formats.trees("nmnist", pathlib.Path("raw"))
    pathlib.Path("raw/Test.zip").write_bytes(event_formats.zipped({"../Test/0/1.bin": b"12345"}))


def own(*lines):
    """The file own.py, with lines after its own."""
    return lambda trained: pathlib.Path("own.py").write_text(OWN + "\n".join(lines))


def weights(content):
    return lambda trained: torch_format.write("a.pt", content)


REFUSED = [
    # Options without a file.
    (nothing, "train digits --runs=", 2, "--runs"),
    (nothing, "train digits --checkpoints gs://", 2, "--checkpoints"),
    (nothing, f"train {TINY} --require gpu", 2, "--require"),
    (nothing, "train digits --distributed h:1,2", 2, "--distributed"),
    (nothing, "train mnist", 2, "mnist make data"),
    (nothing, "train folder --data.dir gone", 2, "data.dir gone"),
    (nothing, "predict digits gone.png", 2, "gone.png"),
    (nothing, "evaluate hf://user", 2, "hf://user"),
    (nothing, "data mnist --from gone", 2, "--from gone"),
    (nothing, "sweep digits --grid seed=3:3", 2, "--grid seed"),
    (nothing, "sweep digits --grid chaos.z0=3,10 --control seed=0", 2, "--control seed"),
    # A folder that is no run, or a run of another config, and files of it that were damaged or edited.
    (lambda trained: os.mkdir("r1"), "evaluate r1", 2, "r1"),
    (run, "train digits --name r1 --runs .", 2, "r1 --name"),
    (run, f"{AGAIN} --optimizer.lr 1", 2, "optimizer.lr --name"),
    (damaged("r1/config.json"), AGAIN, 2, "r1/config.json"),
    (edited("r1/config.json", config__seed=1), AGAIN, 2, "seed --name"),
    (edited("r1/config.json", config__surprise=1), "evaluate r1", 2, "r1/config.json surprise"),
    (edited("r1/config.json", config__model__features=[8, 4]), "evaluate r1", 4, "r1/checkpoints model.features"),
    (damaged("r1/result.json"), AGAIN, 2, "r1/result.json"),
    (numbered_otherwise, AGAIN, 2, "r1/metrics.jsonl"),
    (no_checkpoint_intact, AGAIN, 4, "r1/checkpoints manifest.json"),
    (replaced("r1/lock", os.mkdir), AGAIN, 2, "r1/lock"),
    (replaced("r1/checkpoints", lambda path: None), "evaluate r1", 2, "r1/checkpoints"),
    (replaced("r1/figures", lambda path: os.symlink("..", path)), "evaluate r1", 2, "r1/figures"),
    (run, "evaluate r1 --weights-of ema", 2, "r1 optimizer.ema"),
    (run, "inspect r1 --layer conv9", 2, "conv9"),
    (run, "robustness r1 --margin 0", 2, "--margin"),
    (run, "export r1 --out r1/config.json/a", 2, "r1/config.json/a"),
    (run, "push r1 a/b/c", 2, "a/b/c"),
    (two_runs({"test_accuracy": "1"}), "compare r1 r2", 2, "r1/result.json"),
    (run, "best r1", 2, "r1"),
    # A user's files: pictures and arrays, folders of classes, raw files, experiments, weights.
    (cut_picture, "predict digits x.png", 2, "x.png"),
    (picture, "predict digits x.png --out .", 2, ".: directory"),
    (array(np.full((8, 8), np.nan)), "predict digits x.npy", 2, "x.npy"),
    (vast_array, "predict digits x.npy", 2, "x.npy"),
    (pictures(lambda: shutil.rmtree("pictures/b")), "data folder --data.dir pictures", 2, "pictures"),
    (pictures(lambda: pathlib.Path("pictures/a/2.png").write_text("")), "data folder --data.dir pictures", 2,
     "pictures/a/2.png"),
    (mnist, "data mnist --from raw", 2, "raw/t10k-images-idx3-ubyte.gz"),
    (zip_that_leads_outside, "data nmnist --from raw --no-verify", 2, "raw/Test.zip"),
    (own("import nothing_like_it"), "train own.py", 2, "own.py nothing_like_it"),
    (own("del config"), "train own.py", 2, "own.py config"),
    (own("x = np.zeros((40, 3, 3))"), "train own.py", 2, "own.py x model.time_steps"),
    (weights({"epoch": 3}), f"{DENSE} --weights-table t.json", 2, "t.json"),
    (weights({"ema": {"w": np.zeros(3, np.float32)}, "old": {"w": np.zeros(3, np.float32)}}),
     "evaluate cifar10 --weights a.pt", 2, "a.pt ema old"),
    (weights(torch_format.Call(torch_format.Global("posix", "system"), ("true",))),
     "evaluate cifar10 --weights a.pt", 2, "a.pt posix.system"),
]  # fmt: skip


# Other rows of kinds that are above.
MORE_REFUSED = [
    (nothing, "train digits --profile 3:-1", 2, "--profile"),
    (nothing, "sweep digits --grid chaos.z0=1,1.0", 2, "--grid chaos.z0"),
    (replaced("r1/config.json", os.mkfifo), AGAIN, 2, "r1/config.json"),
    (edited("r1/config.json", config__epochs=0), "evaluate r1", 2, "r1/config.json epochs"),
    (edited("r1/config.json", config__chaos=1), "evaluate r1", 2, "r1/config.json"),
    (run, "inspect r1 --example 359", 2, "--example"),
    (run, "track r1 --to comet", 2, "--to"),
    (run, "report r1 --control r1", 2, "--control --margin"),
    (run, "compare r1 r1", 2, "r1"),
    (array(np.array([{}])), "predict digits x.npy", 2, "x.npy"),
    (pictures(lambda: os.mkdir("pictures/c")), "data folder --data.dir pictures", 2, "pictures/c"),
    (mnist_of_eleven_classes, "data mnist --from raw --no-verify", 2, "raw/train-labels-idx1-ubyte.gz"),
    (own("config = {}"), "train own.py", 2, "own.py config"),
    (own("def data(config, data_dir): return x"), "train own.py", 2, "own.py data"),
    (own("x[3] = np.nan"), "train own.py", 2, "own.py x"),
    (own("y = y[:4]"), "train own.py", 2, "own.py y"),
    (own("y = y - 1"), "train own.py", 2, "own.py y"),
    (own("def nueron(config): ..."), "train own.py", 2, "own.py nueron"),
]


@pytest.mark.parametrize(
    ("setup", "line", "code", "words"),
    [*REFUSED, *full(MORE_REFUSED)],
    ids=[row[1] for row in REFUSED + MORE_REFUSED],
)
def test_a_mistake_is_one_line_that_names_what_to_change(
    setup, line, code, words, trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    setup(trained)
    assert main.main(line.split()) == code
    *_, refusal = capsys.readouterr().err.splitlines()  # before it may stand a note, such as which network is meant
    assert refusal.startswith("csbp_jax: ")
    assert [word for word in words.split() if word not in refusal] == [], refusal


def test_the_same_command_goes_on_with_a_run_that_was_not_touched(trained, tmp_path, monkeypatch, capsys):
    """So that what is refused above is refused for the damage."""
    monkeypatch.chdir(tmp_path)
    run(trained)
    assert main.main(AGAIN.split()) == 0
