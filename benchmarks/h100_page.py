"""What the compiler made for an H100, as a page."""

from benchmarks.tables import table

FORMS = {"a step a pass": "a loop, a step a pass", "XLA": "as it is: unrolled", "kernel": "kernel (CSBP_GPU_KERNEL=1)"}


def page(content):
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    transforms = ", ".join(f"{name} {count}" for name, count in content["transforms"].items())
    fewer = sum(forms["kernel"]["GB"] < forms["XLA"]["GB"] for forms in content["steps"].values())
    return f"""# Compiled for an H100

**Compiled, never run**: `make h100` compiles for an H100 without one. What stands here is read off XLA's optimised
program, not measured, and says nothing about time. Versions: {versions}.

A kernel is counted as often as it starts; scalar copies are not. Bytes are a lower bound: a kernel reads what it is
given and writes what it gives, each byte once. Least: all that goes into the two programs, forward and backward, and
all that comes out, once. XLA chose kernels without trying them (autotuning needs the device). Seconds of compilation
are wall time on one core, beside other work.

## The neuron

A million neurons, hard reset, triangle; bytes an element and time step, forward and backward together.

{_neuron(content["neuron"])}

{_worst(content["neuron"])}

The kernel (experiments/gpu_kernel/kernel.py) reads and writes the least; gradients of decay and threshold, where they
are learned,
are XLA's sums of what is there. It is off unless `CSBP_GPU_KERNEL=1` is in the environment, since no one has run it on
a GPU; run `python -m benchmarks.kernel_check` there first. How many of the two are in a
program: {transforms}.

## Training steps

CIFAR10-DVS, 48x48, T = 10, batch 32, full width, metrics and the check for non-finite values included.

{_steps(content["steps"])}

In a net XLA fuses the norm into its unrolled neuron, which it cannot into a kernel of ours: with the kernel {fewer} of
{len(content["steps"])} move fewer bytes.
"""


def _neuron(kinds):
    head = ["", "T", "form", "kernels", "loops", "bytes", "least", "/ least", "temporaries, bytes", "compile s"]
    body = []
    for kind, rows in kinds.items():
        for T, forms in rows.items():
            for name, both in forms.items():
                moved, least = total(both, "bytes"), total(both, "least_bytes")
                kernels = " + ".join(str(one["kernels"]) for one in both.values())
                held = max(one["temporary_bytes"] for one in both.values())
                cells = [kernels, str(total(both, "loops")), f"{moved:.1f}", f"{least:.1f}", f"{moved / least:.2f}"]
                spent = f"{total(both, 'compile_seconds'):.1f}"
                body.append([kind, T.removeprefix("T="), FORMS[name], *cells, f"{held:.2f}", spent])
    return table(head, body)


def total(both, name):
    """Of forward and backward."""
    return sum(one[name] for one in both.values())


def _worst(kinds):
    def ratios(name):
        each = [forms[name] for rows in kinds.values() for forms in rows.values()]
        found = [total(both, "bytes") / total(both, "least_bytes") for both in each]
        return f"{min(found):.2f} to {max(found):.2f}"

    return f"Bytes over the least: {'; '.join(f'{FORMS[name]} {ratios(name)}' for name in FORMS)}."


def _steps(nets):
    head = ["net", "form", "kernels", "loops", "GB moved", "GB of temporaries", "compile s"]
    body = []
    for net, forms in nets.items():
        for name, n in forms.items():
            cells = [str(n["kernels"]), str(n["loops"]), f"{n['GB']:.1f}", f"{n['temporary_GB']:.2f}"]
            body.append([net, FORMS[name], *cells, f"{n['compile_seconds']:.0f}"])
    return table(head, body)
