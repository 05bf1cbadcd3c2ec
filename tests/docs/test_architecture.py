"""The map of the packages: what a newcomer looks for is in the file that names and map suggest."""

import re

import pytest

from tests.support.checkout import ROOT

# (what is looked for, the file of the package that holds it, a line that does it)
QUESTIONS = [
    ("Where is the update multiplied by the learning rate?", "learner/step.py", r'hparams\["lr"\].* \* u'),
    ("Where are non-finite steps rejected?", "learner/step.py", r"jnp\.isfinite\(loss\)"),
    (
        "Where is z times the chaos term added to the loss?",
        "learner/objective.py",
        r"plain_loss \+ chaos_loss",
    ),
    ("Where is the chaos term?", "chaos.py", r"^def term\("),
    ("Where is z annealed?", "chaos.py", r"^def strength\("),
    ("Where are the terms taken in sub-steps?", "learner/substeps.py", r"chaos\.substeps"),
    ("Where are CBP's kicks added to updates?", "learner/cbp.py", r"^def kick\("),
    ("Where are gradients accumulated over microbatches?", "learner/accumulation.py", r"^def accumulate_gradients\("),
    ("Where is the learning-rate schedule?", "learner/optimizer.py", r"^def schedule\("),
    ("Where is the best try of a tuning chosen?", "experiment/work.py", r"def chosen\("),
    ("Where are initial weights drawn?", "learner/step.py", r"^def init\("),
    ("Where are weights scaled to an initial rate?", "learner/calibration.py", r"^def calibrate\("),
    ("Where is the triangular surrogate?", "surrogate.py", r"^def triangle\("),
    ("Where is the reverse pass of LIF?", "neurons/lif_scan.py", r"^def backward\("),
    ("Where is the range of decay checked?", "neurons/lif.py", r"ranges\.FROM_0_TO_1, decay=decay"),
    ("Where are firing rates collected?", "models/taps.py", r"rates=\{layer: "),
    ("How many checkpoints are kept?", "training/checkpoint/layout.py", r"^KEEP = "),
    ("Where is a config.json of another version refused?", "training/run_json.py", r"^def parse_config\("),
    ("Where is Winograd's form chosen?", "xla/cpu_convolution.py", r"winograd\.pays\("),
    ("Where is PLIF's decay learned?", "neurons/plif.py", r"^class PLIF\("),
    ("Where is TEBN?", "models/norms.py", r"^class TEBN\("),
    ("Where is the SEW block?", "models/sew_resnet.py", r"^def connect\("),
    ("Which tensors can be tapped?", "models/taps.py", r"LAYER\.membrane_pre"),
    ("Where is the drift, the non-chaotic control?", "controls.py", r"^def drift\("),
    ("Where are Lyapunov exponents computed?", "dynamics/lyapunov.py", r"^def lyapunov\("),
    ("Where is a run called chaotic or not?", "instruments/classify.py", r"^def classify\("),
    ("Where is a batch split over devices?", "runtime/sharding.py", r"^def shard_batch\("),
    ("Where is SIGTERM handled?", "runtime/preemption.py", r"signal\.SIGTERM"),
    ("Where is a checkpoint's manifest written?", "training/checkpoint/manifest.py", r"^def write_manifest\("),
    ("Where are the weights of the best epoch selected?", "training/progress.py", r"^def is_better\("),
    ("Where does a run stop as diverged?", "training/health.py", r"raise Diverged\("),
    ("Where is a stopped run resumed?", "training/session.py", r"store\.restore\("),
    ("Where is the loop over epochs?", "training/epochs.py", r"^def train\("),
    ("Where are callbacks called?", "training/callbacks.py", r"callback\(trainer, row\)"),
    ("Which arrays of a checkpoint may be missing?", "training/session.py", r"optional=\["),
    ("Where is the order of an epoch drawn?", "data/pipeline.py", r"permutation"),
    ("Where are CIFAR's raw files read?", "data/images/readers.py", r"^def cifar\("),
    ("Where are events counted into frames?", "data/events/binning.py", r"^def count\("),
    ("Where is mixup?", "data/device/mix.py", r"^def mixup\("),
    ("Where is the default of an option?", "config/schema.py", r"z0: Annotated\[tuple\[float, \.\.\.\],"),
    ("Where is a value of an option refused?", "config/validation.py", r"^def check\("),
    ("Which options exclude one another?", "config/rules.py", r"^RULES = "),
    ("Which exit codes are there?", "cli/main.py", r"Exit codes:"),
    ("Which runs of an experiment share a compilation?", "experiment/fields.py", r"^def compile_group\("),
    ("Where is the calibration error?", "evaluation/scores.py", r"^def calibration\("),
    ("Where is the energy of synaptic operations?", "evaluation/synaptic_ops.py", r"^def energy_pj\("),
    ("Where are the severities of perturbations?", "evaluation/robustness/battery.py", r"^PERTURBATIONS"),
    ("Where are PyTorch's names translated?", "weights/names.py", r"^class Table"),
]


@pytest.mark.parametrize(
    ("file", "line"), [(file, line) for _, file, line in QUESTIONS], ids=[q for q, *_ in QUESTIONS]
)
def test_the_file_that_the_name_suggests_holds_it(file, line):
    assert re.search(line, (ROOT / "csbp_jax" / file).read_text(), re.MULTILINE)


def test_the_map_names_every_package_and_module_at_the_top():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in (ROOT / "csbp_jax").iterdir():
        name = path.name.removesuffix(".py")
        if path.suffix in ("", ".py") and not name.startswith("_"):
            assert f"`{name}`" in text or f"`{name}/" in text, name


def test_the_map_names_files_that_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    files = re.findall(r"[a-z_]+/[a-z_/]+\.(?:py|md)", text)
    for file in files:
        assert (ROOT / file).exists() or (ROOT / "csbp_jax" / file).exists(), file
