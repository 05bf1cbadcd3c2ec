"""The page of benchmarks.device, which begins with the answer."""

from collections.abc import Mapping
from typing import Any

from benchmarks.tables import table

Content = Mapping[str, Any]
CHECKS = ("numbers equal", "resume")


def page(content: Content) -> str:
    """The text of the page, from the content of device.json."""
    device, parts = content["device"], content["parts"]
    of = f"{device['count']} x {device['kind']}"
    memory = f", {device['memory_GB']} GB each" if device["memory_GB"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in device["versions"].items())
    small = " **Small nets and images: its times say nothing about this device.**" if content["about"]["small"] else ""
    blocks = [
        f"# csbp_jax on {of}",
        f"**{_answer(parts)}**{small}",
        f"A copy reaches {device['copy_GBps']:,.0f} GB/s. {versions}{memory}. `make device`; device.json has all rows.",
        _checks(parts),
        _steps(parts),
        _pooling(parts),
        _sweep(parts),
        _beside(parts),
        _not_run(parts),
        "Please send this page and device.json, whatever they say: as an issue of the repository.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _rows(parts: Content, word: str) -> dict[str, list[Content]]:
    """Rows of the parts whose name begins with a word, by the rest of the name."""
    return {name.removeprefix(word): part["rows"] for name, part in parts.items() if name.startswith(word)}


def _answer(parts: Content) -> str:
    checks = {name: part["status"] for name, part in parts.items() if name.startswith(CHECKS)}
    passed = sum(status == "passed" for status in checks.values())
    others = [f"{name}: {status}" for name, status in checks.items() if status != "passed"]
    words = f"{passed} of {len(checks)} checks passed" + f" ({'; '.join(others)})" * bool(others)
    fastest = []
    for name, rows in _rows(parts, "steps: ").items():
        if timed := [row for row in rows if "ms" in row]:
            best = max(timed, key=lambda row: row["batch"] / row["ms"])
            fastest.append(f"{name} {best['steps_per_second']:,.1f} (batch {best['batch']})")
    steps = f"Steps per second: {'; '.join(fastest)}." if fastest else "No step is timed yet."
    return " ".join([f"{words}.", steps, *_faster_peer(parts)])


def _faster_peer(parts: Content) -> list[str]:
    """The faster of SpikingJelly's rows over ours, eagerly or compiled, of each network that has both."""
    ratios = []
    for name, (ours, *peers) in _rows(parts, "beside SpikingJelly: ").items():
        if peers:
            best = min(peers, key=lambda row: row["ms"])
            ratios.append(f"{name} {best['ms'] / ours['ms']:.2f} ({best['library'].split(', ')[1]}, {best['layout']})")
    return [f"SpikingJelly's time over ours: {'; '.join(ratios)}."] if ratios else []


def _checks(parts: Content) -> str:
    rows = []
    for name, part in parts.items():
        if not name.startswith(CHECKS):
            continue
        layers = [row for row in part["rows"] if "layer" in row]
        worst = {key: max((row[key] for row in layers if key in row), default=None) for key in ("membrane", "gradient")}
        spikes = f"{sum(row.get('spikes', 0) for row in layers):,} of {sum(row.get('of', 0) for row in layers):,}"
        numbers = ["" if value is None else f"{value:.1e}" for value in worst.values()]
        bad = ", ".join(row["layer"] for row in layers if not row["ok"])
        rows.append([name, part["status"], *numbers, spikes if layers else "", bad or part["why"]])
    head = ["check", "", "membranes differ by", "gradients by", "spikes that differ", "where"]
    return table(head, rows) if rows else ""


def _steps(parts: Content) -> str:
    rows = []
    for name, of_part in _rows(parts, "steps: ").items():
        timed = [row for row in of_part if "ms" in row]
        end = next((row["end"] for row in of_part if "end" in row), parts[f"steps: {name}"]["status"])
        for row in timed[:1] + timed[-1:] * (len(timed) > 1):
            bytes_ = [f"{row['GB']:,.2f}", f"{row['GBps']:,.0f}"] if "GB" in row else ["", ""]
            share = f"{row['of_peak_flops']:.1%}" if "of_peak_flops" in row else ""
            numbers = [str(row["batch"]), f"{row['ms']:,.2f}", f"{1e3 * row['batch'] / row['ms']:,.0f}"]
            last = end if row is timed[-1] else ""
            rows.append([name, *numbers, *bytes_, share, f"{row['peak_GB']:.2f}", last])
    head = ["step", "batch", "ms", "examples/s", "GB counted", "GB/s", "of peak FLOP/s", "GB in use", "ended by"]
    return table(head, rows) if rows else ""


def _pooling(parts: Content) -> str:
    rows = [
        [f"{row['window']}, {row['dtype']}", f"{row[XLA]:.3f}", f"{row['ours']:.3f}", f"{row['ratio']:.2f}"]
        for row in parts.get("max pooling", {"rows": []})["rows"]
    ]
    head = ["max pooling, forward and backward", "XLA's windows (ms)", "sums of ours (ms)", "ratio"]
    return table(head, rows) if rows else ""


def _sweep(parts: Content) -> str:
    rows = parts.get("sweep by chunk", {"rows": []})["rows"]
    if not rows:
        return ""
    head = ["members at once (`--chunk`)", *(str(row["chunk"]) for row in rows)]
    return table(head, [["ms a step and member, digits", *(f"{row['ms_a_member']:.2f}" for row in rows)]])


def _beside(parts: Content) -> str:
    rows = []
    for name, of_part in _rows(parts, "beside SpikingJelly: ").items():
        for row in of_part:
            where = ", ".join(row[key] for key in ("layout", "device") if key in row)
            ratio = row["ms"] / of_part[0]["ms"]
            rows.append([f"{name}, {row['library']}", where, f"{row['ms']:.2f}", f"{ratio:.2f}", f"{row['loss']:.6f}"])
    head = ["the same step", "", "ms", "over ours", "first loss"]
    return table(head, rows) if rows else ""


def _not_run(parts: Content) -> str:
    words = {"not run": "not run", "broke": "broke", "out of time": "out of time"}
    lines = [f"- {name}: {part['status']}: {part['why']}" for name, part in parts.items() if part["status"] in words]
    return "\n".join(lines)


XLA = "XLA's"
