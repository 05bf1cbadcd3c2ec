"""Write the page of the three data benchmarks from their results: ``python -m benchmarks.data_page``."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

OUT = pathlib.Path("docs/checks/data")


def table(images: dict[str, Any], events: dict[str, Any], device: dict[str, Any]) -> str:
    """The numbers that have targets, in Markdown; a cell is median (minimum-maximum)."""
    cifar = images["cifar_pictures_per_second"]
    counted = {name.split(":")[0]: rates for name, rates in events["million_events_per_cpu_second"].items()}
    rows = [
        ("CIFAR from memory: crop, flip, normalise", "pictures/s", cifar["gather, crop, flip, normalise"]),
        ("the same as batches of the pipeline", "pictures/s", cifar["train_batches, normalise"]),
        *jpegs("ImageNet JPEG", images["imagenet"]["pictures_per_second"]),
        *(jpegs("photograph", images["photographs"]["pictures_per_second"]) if "photographs" in images else ()),
        ("events counted, size of DVS-Gesture", "million/s", counted["dvs_gesture"]["by_number"]),
        ("events counted, size of CIFAR10-DVS", "million/s", counted["cifar10_dvs"]["by_number"]),
        ("events counted, size of N-MNIST", "million/s", counted["nmnist"]["by_number"]),
        ("augmentation on the device: nda, 10x48x48x2", "ms", device["ms_per_example"]["nda"]),
        ("augmentation on the device: event_drop", "ms", device["ms_per_example"]["event_drop"]),
    ]
    return "\n".join(
        ["| what | unit | median (minimum-maximum) |", "|---|---|---|"]
        + [f"| {what} | {unit} | {_cell(**rates)} |" for what, unit, rates in rows]
    )


def jpegs(what: str, rates: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Rows of images that are decoded, cropped and resized: by each decoder and resizer, as they are and reduced."""
    for name, numbers in rates.items():
        how, _, rest = name.partition(", resized crop")
        if how != name:
            yield f"{what}{rest} to a random 224x224 crop, {how}", "pictures/s", numbers


def _cell(median: float, min: float, max: float) -> str:
    def digits(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    return f"{digits(median)} ({digits(min)}-{digits(max)})"


def photographs(images: dict[str, Any]) -> str:
    """A sentence on the photographs that were timed."""
    if "photographs" not in images:
        return "Real images were not timed."
    numbers = images["photographs"]
    return f"The photographs are {numbers['images']} {numbers['source']}, {numbers['mean_kB']:.0f} kB each."


def page(images: dict[str, Any], events: dict[str, Any], device: dict[str, Any]) -> str:
    """The text of README.md."""
    return f"""# Speed of the data pipeline

How many pictures and events does one CPU core prepare in a second?

{table(images, events, device)}

CPU time of one core on a shared machine ({images["machine"]}; load average {images["load_average_before"]:.1f} when the
images were timed); of augmentation on the device, {device.get("clock", "wall time")}. CIFAR's images are random bytes,
ImageNet's are synthetic JPEGs of noise with a decaying spectrum, {images["imagenet"]["mean_kB"]:.0f} kB each: the speed
depends on how much detail an image has.
{photographs(images)}
"Shorter side 256": the images were reduced before ([data](../../data.md#smaller-images)). Events are random, in memory.

Made by `python -m benchmarks.data_images{" --photographs FOLDER" if "photographs" in images else ""}`,
`{events["command"]}` and `{device["command"]}`, whose numbers are in the
JSON files, and `python -m benchmarks.data_page`. `make bench-data` runs all four, without photographs.
"""


def main() -> None:
    parts = (json.loads((OUT / f"{name}.json").read_text()) for name in ("images", "events", "device"))
    (OUT / "README.md").write_text(page(*parts))


if __name__ == "__main__":
    main()
