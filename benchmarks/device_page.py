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
        _train(parts),
        _sweeps(parts),
        _forms(parts),
        _checks(parts),
        _steps(parts),
        _beside(parts),
        _devices(parts),
        _decoding(parts),
        _compilation(parts),
        _pooling(parts),
        _not_run(parts),
        _about(content, versions, memory),
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
    words = [f"{passed} of {len(checks)} checks passed" + f" ({'; '.join(others)})" * bool(others) + "."]
    fastest = []
    for name, rows in _rows(parts, "steps: ").items():
        if timed := [row for row in rows if "ms" in row]:
            best = max(timed, key=lambda row: row["batch"] / row["ms"])
            fastest.append(f"{name} {best['steps_per_second']:,.1f} (batch {best['batch']})")
    steps = [f"Steps per second: {'; '.join(fastest)}."] if fastest else []
    trained = [
        f"{name} {_rate(row['examples_per_second'])} examples/s, waiting {row['waiting']:.0%}"
        for name, rows in _rows(parts, "train: ").items()
        for row in rows
    ]
    whole = [f"Training: {'; '.join(trained)}."] if trained else []
    said = [*whole, *(words if checks else []), *_best_forms(parts), *steps, *_faster_peer(parts)]
    return " ".join(said) or "Nothing is measured yet."


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _best_forms(parts: Content) -> list[str]:
    """The form of each network's step, and of its sweep, that is at least 3 % faster than the one that is used."""
    faster = []
    for kind, key in (("forms of the step: ", "ms"), ("sweep: ", "ms_a_member")):
        for name, rows in _rows(parts, kind).items():
            timed = [row for row in rows if row.get(key) and row.get("members", 2) > 1]
            if not timed:
                continue
            best = min(timed, key=lambda row: row[key])
            used = timed[0][key]
            if best[key] < 0.97 * used:
                faster.append(f"{kind}{name}: {best['form']} ({best[key] / used:.2f} of the time)")
    return [f"Faster than the form that is used: {'; '.join(faster)}."] if faster else []


def _faster_peer(parts: Content) -> list[str]:
    """The fastest of SpikingJelly's rows over ours, in each precision, of each network that has both."""
    ratios = []
    for name, rows in _rows(parts, "beside SpikingJelly: ").items():
        for ours in (row for row in rows if row["library"] == "csbp_jax"):
            peers = [row for row in rows if row is not ours and row["precision"] == ours["precision"]]
            if peers:
                best = min(peers, key=lambda row: row["ms"])
                how = f"{best['library'].split(', ')[1]}, {best['kernels']}, {best['layout']}"
                ratios.append(f"{name}, {ours['precision']} {best['ms'] / ours['ms']:.2f} ({how})")
    return [f"SpikingJelly's time over ours: {'; '.join(ratios)}."] if ratios else []


def _train(parts: Content) -> str:
    rows = []
    for of_part in _rows(parts, "train: ").values():
        for row in of_part:
            used = f"{row['utilisation']:.1%}" if "utilisation" in row else ""
            rows.append([f"`{row['program']}`", _rate(row["examples_per_second"]), f"{row['waiting']:.1%}", used])
    head = ["training, with its data", "examples/s", "waiting for data", "of peak FLOP/s"]
    return table(head, rows) if rows else ""


def _forms(parts: Content) -> str:
    rows = []
    for name, of_part in _rows(parts, "forms of the step: ").items():
        for row in of_part:
            ms = f"{row['ms']:,.2f}" if row["ms"] else row["why"]
            memory = f"{row['temporary_GB']:.2g}" if "temporary_GB" in row else ""
            ratio = f"{row['ms'] / of_part[0]['ms']:.2f}" if row["ms"] and of_part[0]["ms"] else ""
            rows.append([f"{name}, batch {row['batch']}, {row['form']}", f"`{row['program']}`", ms, ratio, memory])
    head = ["form of the step", "program", "ms", "over as it is", "GB of temporaries"]
    return table(head, rows) if rows else ""


def _devices(parts: Content) -> str:
    rows = [
        [f"{name}, {row['devices']}", f"`{row['program']}`", f"{row['ms']:,.2f}", f"{row['examples_per_second']:,.0f}"]
        for name, of_part in _rows(parts, "one to all devices: ").items()
        for row in of_part
    ]
    return table(["devices", "program", "ms", "examples/s"], rows) if rows else ""


def _decoding(parts: Content) -> str:
    rows = [
        [str(row["threads"]), row["program"], f"{row['images_per_second']:,.0f}"]
        for row in parts.get("decoding by threads", {"rows": []})["rows"]
    ]
    return table(["threads of the host", "program", "images/s"], rows) if rows else ""


def _compilation(parts: Content) -> str:
    rows = [
        [f"{name}, {row['cache']}", f"`{row['program']}`", f"{row['compile_seconds']:.1f}"]
        for name, of_part in _rows(parts, "compilation: ").items()
        for row in of_part
    ]
    return table(["compilation, cache", "program", "seconds"], rows) if rows else ""


def _about(content: Content, versions: str, memory: str) -> str:
    device = content["device"]
    clocks = f" Driver, highest clocks and power: {device['clocks']}." if device.get("clocks") else ""
    copy = f"A copy reaches {device['copy_GBps']:,.0f} GB/s."
    return f"{copy} {versions}{memory}.{clocks} `make device`; device.json has all rows."


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
            of = f"`{row['program']}`"
            rows.append([name, of, *numbers, *bytes_, share, f"{row['peak_GB']:.2f}", last])
    head = [
        "step",
        "program",
        "batch",
        "ms",
        "examples/s",
        "GB counted a device",
        "GB/s",
        "of peak FLOP/s",
        "GB in use",
        "ended by",
    ]
    return table(head, rows) if rows else ""


def _pooling(parts: Content) -> str:
    rows = [
        [f"{row['window']}, {row['dtype']}", f"{row[XLA]:.3f}", f"{row['ours']:.3f}", f"{row['ratio']:.2f}"]
        for row in parts.get("max pooling", {"rows": []})["rows"]
    ]
    head = ["max pooling, forward and backward", "XLA's windows (ms)", "sums of ours (ms)", "ratio"]
    return table(head, rows) if rows else ""


def _sweeps(parts: Content) -> str:
    rows = []
    for name, of_part in _rows(parts, "sweep: ").items():
        for row in of_part:
            form = f"{row['members']} on each device, {row['form']}" if row["members"] > 1 else "one on each device"
            rows.append([f"{name}, {form}", f"`{row['program']}`", f"{row['ms_a_member']:.3f}"])
    return table(["runs of a sweep", "program", "ms a step and run"], rows) if rows else ""


def _beside(parts: Content) -> str:
    rows = []
    for name, of_part in _rows(parts, "beside SpikingJelly: ").items():
        ours = {row["precision"]: row["ms"] for row in of_part if row["library"] == "csbp_jax"}
        for row in of_part:
            where = ", ".join(row[key] for key in ("kernels", "layout", "device") if key in row)
            ratio = row["ms"] / ours[row["precision"]]
            what = f"{name}, batch {row['batch']}, {row['precision']}, {row['library']}"
            numbers = [f"{row['ms']:.2f}", f"{ratio:.2f}", f"{row['loss']:.6f}"]
            rows.append([what, f"`{row['program']}`", where, *numbers])
    head = ["the same step", "program", "", "ms", "over ours", "first loss"]
    return table(head, rows) if rows else ""


def _not_run(parts: Content) -> str:
    words = {"not run": "not run", "broke": "broke", "out of time": "out of time"}
    lines = [f"- {name}: {part['status']}: {part['why']}" for name, part in parts.items() if part["status"] in words]
    return "\n".join(lines)


XLA = "XLA's"
