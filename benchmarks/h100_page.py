"""The programs compiled for an H100, as a page."""

from typing import Any

from benchmarks import hlo
from benchmarks.tables import table

SHOWN = ("T=4", "T=100")
FORMS = {"a step a pass": "a loop, a step a pass", "XLA": "as it is: unrolled"}


def page(content: dict[str, Any]) -> str:
    """The text of h100.md, from the content of h100.json."""
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    return f"""# Compiled for an H100

How many kernels does an H100 start, and how many bytes move, for the neuron and for training steps?

**Compiled, never run: the unrolled neuron moves {_worst(content["neuron"], "XLA")} times the least bytes, in a loop
over single steps {_worst(content["neuron"], "a step a pass")} times.** `make h100` compiles without a GPU. The
numbers are read off XLA's optimised programs, not measured, and say nothing about time.

## The neuron

A million neurons, hard reset, triangle; bytes per neuron and time step, forward and backward together. Least: all
inputs and outputs of the two programs, each moved once.

{_neuron(content["neuron"])}

A kernel is counted as often as it starts; bytes are an estimate: it reads its operands and writes its results, each
byte once. XLA chose kernels without timing them, as autotuning needs the device.

## Training steps

CNN7 and VGGSNN on CIFAR10-DVS, 48x48, T = 10, batch 32; full width, metrics and the check for non-finite values
included.

{_steps(content["steps"], content.get("before", {}))}

SEW-ResNet-34: 224x224, T = 4, batch 32.{_compared(content)}

digits is the preset, small and large are the networks of [time to an accuracy](time_to_accuracy.md), each with its own
batch; ResNet-19 has 32x32 and SEW-ResNet-18 64x64, T = 4, batch 32.

Percent of the bytes by part of the step, as it is:

{hlo.traffic({net: forms["XLA"]["parts"] for net, forms in content["steps"].items()})}

A fusion of two parts counts as that of its last operation: the unrolled neuron's often hold the norm, too.

Two Pallas kernels for the neuron (commit 931982bd, since removed) moved only the least bytes by themselves, with decay
and threshold fixed. With them, four of the first five networks above moved 0.3 to 10 % more bytes, and VGGSNN in
float32 21 % fewer: XLA fuses a norm into its unrolled neuron, but not into such a kernel. A kernel that pays would have
to apply [norm and neuron together](../../design/decisions.md), and recompute the neuron in its reverse pass.

{_pooling(content["pooling"])}

{_members(content["members"])}

{_presets(content["presets"])}

`h100.json` holds T = 16 and 32, temporaries, loops and seconds of compilation, too. Versions:
{versions}.
"""


def _compared(content):
    if "before" not in content:
        return ""
    return f""" Before: at {content["before_commit"]}, before networks were changed for leaner
programs; compiled by the same command with ``--before``."""


def _neuron(kinds):
    head = ["", "T", "least, bytes", *(f"{label}: kernels, bytes / least" for label in FORMS.values())]
    body = []
    for kind, rows in kinds.items():
        for T, forms in ((T, forms) for T, forms in rows.items() if T in SHOWN):
            cells = [f"{total(forms['XLA'], 'least_bytes'):.1f}"]
            for programs in (forms[name] for name in FORMS):
                kernels = " + ".join(str(program["kernels"]) for program in programs.values())
                cells.append(f"{kernels}, {total(programs, 'bytes') / total(programs, 'least_bytes'):.2f}")
            body.append([kind, T.removeprefix("T="), *cells])
    return table(head, body)


def total(programs: dict[str, dict[str, float]], name: str) -> float:
    """Sum of a number over the forward and the backward program."""
    return sum(program[name] for program in programs.values())


def _worst(kinds, form):
    pairs = [forms[form] for rows in kinds.values() for forms in rows.values()]
    values = [total(programs, "bytes") / total(programs, "least_bytes") for programs in pairs]
    return f"{min(values):.2f} to {max(values):.2f}"


def _steps(nets, before):
    head = ["net", "form", "kernels", "GB moved", "before", "GB of temporaries", "before"]
    body = []
    for net, forms in nets.items():
        for name, now in forms.items():
            then = before.get(net, {}).get(name)
            moved = [f"{program['GB']:.3g}" if program else "" for program in (now, then)]
            temporary = [f"{program['temporary_GB']:.3g}" if program else "" for program in (now, then)]
            body.append([net, FORMS[name], str(now["kernels"]), *moved, *temporary])
    return table(head, body)


def _pooling(programs):
    head = ["", "gradient", "kernels", "scatters", "sorts", "GB", "deterministic: kernels", "scatters", "sorts", "GB"]
    body = []
    for name, forms in programs.items():
        for form, options in forms.items():
            cells = [name, form]
            for counts in (options["default"], options["deterministic"]):
                cells += [str(counts[column]) for column in ("kernels", "scatters", "sorts")] + [f"{counts['GB']:.2f}"]
            body.append(cells)
    return f"""## Max pooling

XLA's own gradient is a scatter: it adds in an order that differs from run to run, or with `--deterministic` sorts all
elements before. Ours (`csbp_jax/xla/pooling.py`) does neither. Forward and backward pass:

{table(head, body)}

3x3: the stem of SEW-ResNet at batch 32 and T = 4; 2x2: a layer of PLIF-Net on CIFAR-10 at batch 32 and T = 8;
SEW-ResNet-34: the training step above. The scatter that is left there is of its loss: the gradient of the logits that
the 32 labels choose."""


def _members(presets):
    head = ["", "", "kernels a step", "GB moved a member", "GB of temporaries a member", "seconds to compile"]
    labels = {
        "alone": "a run alone",
        "grouped": "32 members, grouped",
        "each": "32 members, calls of their own: as it is",
    }
    body = [
        [
            preset,
            labels[form],
            str(program["kernels"]),
            f"{program['GB']:.3f}",
            f"{program['temporary_GB']:.4f}",
            f"{program['compile_seconds']:.0f}",
        ]
        for preset, forms in presets.items()
        for form, program in forms.items()
    ]
    return f"""## Members of a sweep

JAX makes one convolution in groups of the members' convolutions, and of the gradients of their kernels a forward
convolution whose windows have the size of an image. With one call of cuDNN for each member, but for small convolutions
(`csbp_jax/xla/gpu_convolution.py`), a member moves about as many bytes as a run alone:

{table(head, body)}"""


BANDWIDTH = 3.35e3  # GB/s of an H100 SXM, by its data sheet


def _presets(presets):
    head = ["", "", "GB of training", "GB of evaluation", "GB moved a step", "steps of a run", "hours at least"]
    body = [
        [
            preset,
            precision,
            f"{row['training_GB']:.2g}",
            f"{row['evaluation_GB']:.2g}",
            f"{row['GB']:.3g}",
            f"{row['steps']:,}",
            f"{row['GB'] * row['steps'] / BANDWIDTH / 3600:.2g}",
        ]
        for preset, precisions in presets.items()
        for precision, row in precisions.items()
    ]
    return f"""## Presets of the paper

Memory of a whole training step and of an evaluation, state included; XLA's count leaves out what is in flight, and
fragments. Hours at least: the bytes of all training steps at the bandwidth of an H100's memory. A run takes longer, as
no program reaches this bandwidth throughout, and as it also loads and evaluates data; how much longer was not measured.

{table(head, body)}"""
