"""Calculate what a pod needs to train on ImageNet, from counts of compiled programs and from measured decoding.

    python -m benchmarks.pod_plan [--chips 2048] [--per-host 4] [--batch 8] [--epochs 320]

Reads tpu.json (operations and bytes of a step, ``make tpu``) and images.json (photographs that a core decodes a second,
``python -m benchmarks.data_speed --only images --photographs FOLDER``), and writes docs/checks/bench/plan.md. Nothing
is run. Networks that tpu.json lacks are left out.
"""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.h100 import PUBLISHED
from benchmarks.tables import table
from benchmarks.tpu_page import CHIPS, Chip

IMAGES = pathlib.Path("docs/checks/data/images.json")
TRAINING_IMAGES = 1_281_167 * 9 // 10
"""A tenth is held out."""
PREPARED = {
    "published images": ("simplejpeg and cykooz, resized crop", "mean_kB"),
    "published images, Pillow": ("simplejpeg, resized crop", "mean_kB"),
    "shorter side 256": ("simplejpeg and cykooz, resized crop, shorter side 256", "mean_kB_reduced"),
    "shorter side 256, Pillow": ("simplejpeg, resized crop, shorter side 256", "mean_kB_reduced"),
}
"""Programs of images.json, and the size of their images."""
NETWORKS = ("SEW-ResNet", "TEBN-ResNet", "Spikformer")
"""Beginnings of the names of ImageNet's networks."""
RATES = (250, 500, 1000, 2000, 4000)
"""Images per second and chip, where a device's own number is known."""


class Step(NamedTuple):
    """An estimate of the least time of a step for each image, and what sets it."""

    seconds: float
    bound: str


def least_time(chip: Chip, program: Mapping[str, Any]) -> Step:
    """Seconds an image at a chip's peak rates: the larger of those of its operations and of its bytes."""
    by_operations, by_bytes = program["flops"] / chip.flops, program["bytes"] / chip.bandwidth
    bound = "bytes" if by_bytes > by_operations else "operations"
    return Step(max(by_operations, by_bytes) / program["batch"], bound)


def cores(images_per_second: float, photographs: Mapping[str, Any]) -> list[float]:
    """Cores that decode this number of images a second, for each way of ``PREPARED``."""
    rates = photographs["pictures_per_second"]
    return [images_per_second / rates[program]["median"] for program, _ in PREPARED.values()]


def imagenet_programs(content: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """``{(network, chip): program}`` of ImageNet's networks over one slice, the first of each in layout ``data``."""
    first: dict[tuple[str, str], Any] = {}
    for key, program in content["programs"].items():
        network, slice_name, layout = key.split(", ")
        if network.startswith(NETWORKS) and layout == "data" and " x " not in slice_name and " with " not in network:
            first.setdefault((network, slice_name.split()[0]), program)
    return first


def least_times(content: Mapping[str, Any]) -> dict[tuple[str, str], tuple[Mapping[str, Any], Step]]:
    """``{(network, chip): (program, step)}``; a chip that a network was not compiled for has the counts of another."""
    programs = imagenet_programs(content)
    times = {}
    for network in dict.fromkeys(network for network, _ in programs):
        for name, chip in CHIPS.items():
            if (network, name) in programs:
                program, label = programs[network, name], name
            else:
                other = next(compiled for compiled_network, compiled in programs if compiled_network == network)
                program, label = programs[network, other], f"{name}, counts of {other}"
            times[network, label] = program, least_time(chip, program)
    return times


def pod_table(content: Mapping[str, Any], options: argparse.Namespace) -> str:
    """A row for each network and chip: step, epochs, and the images that a host reads."""
    rows = []
    for (network, chip), (program, step) in least_times(content).items():
        steps = TRAINING_IMAGES // (options.batch * options.chips)
        per_step = options.batch * step.seconds
        rows.append(
            [
                *(network, chip, f"{program['bytes'] / program['batch'] / 1e9:.3g}"),
                *(f"{1e3 * step.seconds:.3g}", step.bound, f"{1 / step.seconds:,.0f}", f"{1e3 * per_step:.3g}"),
                *(f"{options.epochs * steps * per_step / 60:.3g}", f"{options.per_host / step.seconds:,.0f}"),
            ]
        )
    head = ["network", "chip", "GB an image", "least ms an image", "bound by", "images/s of a chip"]
    head += ["least ms of a step", f"least minutes of {options.epochs} epochs", "images/s of a host"]
    return table(head, rows)


def input_table(rates: Sequence[float], photographs: Mapping[str, Any], per_host: int) -> str:
    """Cores of a host, for images a second of a chip."""
    rows = []
    for rate in rates:
        needed = cores(per_host * rate, photographs)
        rows.append([f"{rate:,.0f}", f"{per_host * rate:,.0f}", *(f"{number:.1f}" for number in needed)])
    return table(["images/s of a chip", "images/s of a host", *(f"cores, {how}" for how in PREPARED)], rows)


def page(tpu: Mapping[str, Any], images: Mapping[str, Any], options: argparse.Namespace) -> str:
    """The text of plan.md."""
    batch = options.batch * options.chips
    times, photographs = least_times(tpu), images["photographs"]
    counted = (
        pod_table(tpu, options)
        if times
        else "No network of ImageNet is in tpu.json yet, so that nothing of this is counted."
    )
    rates = sorted({round(1 / step.seconds) for _, step in times.values()} | set(RATES))
    size, reduced = (f"{photographs[size]:.0f}" for size in ("mean_kB", "mean_kB_reduced"))
    return f"""# What a pod needs

**Calculated, not run**: `python -m benchmarks.pod_plan` for {options.chips:,} chips, {options.per_host} of them a host,
and {options.batch} images a chip: a batch of {batch:,}, {TRAINING_IMAGES // batch} steps an epoch.

## Steps

From [programs compiled for TPUs](tpu.md) with 32 images a chip: about the least time that an image takes at the chip's
peak rates (its bytes are an estimate), and a step in proportion. It leaves out the time of collectives and of waiting,
which make a run longer and the images of a host fewer. "Counts of" another chip: not compiled for this one.

{counted}

## Input of a host

Cores that decode, crop and resize the images: the images that a host needs, divided by what one core does
([measured](../data/README.md) on photographs, at a load average of
{images["load_average_before"]:.0f}). These have {size} kB on average, and {reduced} kB with a shorter side of 256:
a host that needs 1,000 a second reads {size} or {reduced} MB a second.

{input_table(rates, photographs, options.per_host)}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("--chips", 2048), ("--per-host", 4), ("--batch", 8), ("--epochs", 320)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--out", type=pathlib.Path, default=PUBLISHED)
    options = parser.parse_args(arguments)
    tpu, images = json.loads((PUBLISHED / "tpu.json").read_text()), json.loads(IMAGES.read_text())
    rates = images.get("photographs", {}).get("pictures_per_second", {})
    if not rates.keys() >= {program for program, _ in PREPARED.values()}:
        parser.error(
            f"{IMAGES} has no photographs that simplejpeg decoded and cykooz resized; install simplejpeg and "
            "cykooz-resizer, and run python -m benchmarks.data_speed --only images --photographs FOLDER"
        )
    text = page(tpu, images, options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "plan.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
