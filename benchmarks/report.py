"""Writes the tables and pictures of docs/performance.md from the results, between its markers.

`python -m benchmarks.report`; with `--check` writes nothing and fails when the page is not what the results say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import plots
from benchmarks.operators import ORDER
from benchmarks.result import RESULTS, read, stderr
from benchmarks.shape import ROOT

PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"


def page(text: str, results: Path = RESULTS) -> str:
    """The page with every section between its markers, `<!-- begin <name> -->` and `<!-- end <name> -->`, made anew."""
    for name, section in SECTIONS.items():
        found = read(name, results)
        body = "\n\n".join(section(result) for result in found) or "_Not measured yet._"
        pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(pattern, lambda match, body=body: f"{match[1]}\n{body}\n\n{match[2]}", text, flags=re.DOTALL)
    return text


def draw(results: Path = RESULTS, images: Path = IMAGES) -> None:
    """Draws the pictures that the page shows."""
    for question, plot in PLOTS.items():
        for result in read(question, results):
            plot(result, images / _image(result))


def _unet_step(result: dict[str, Any]) -> str:
    rows = []
    for name, seconds in sorted(result["median_s"].items(), key=lambda item: item[1]):
        spread, error = result["spread_s"][name], result["relative_rms_error"][name]
        to_ours = result["ratio_spread"].get(f"{name}/ours-w8a8")
        ratio = "" if to_ours is None else f"{result['ratio'][f'{name}/ours-w8a8']:.2f} {_range(to_ours, 2)}"
        rows.append(
            (
                name,
                f"{seconds:.3f} {_range(spread, 3)}",
                ratio,
                "" if error is None else f"{error:.4f}",
                f"{result['resident_bytes'][name] / 1e9:.2f}",
            )
        )
    head = ("contender", "seconds (quartiles)", "time / `ours-w8a8`", "relative error", "process, GB")
    missing = "".join(f"\n\nNot measured: {reason}" for reason in result["missing"].values())
    title = f"### One step: {result['shape']}, batch {result['batch']}"
    return f"{title}\n\n{_where(result)}\n\n{_picture(result)}\n\n{_table(head, rows)}{missing}"


def _picture_times(result: dict[str, Any]) -> str:
    rows = [
        (name, f"{times['median']:.3f} {_range(times, 3)}", f"{result['ratio'][f'{name}/diffusers-bf16']:.2f}")
        for name, times in sorted(result["picture_s"].items(), key=lambda item: item[1]["median"])
    ]
    head = ("pipeline", "seconds per picture (quartiles)", "time / `diffusers-bf16`")
    title = f"### From prompt to pixels: {result['model']}, {result['num_inference_steps']} steps, "
    return f"{title}{result['pictures']} at a time\n\n{_where(result)}\n\n{_table(head, rows)}"


def _breakdown(result: dict[str, Any]) -> str:
    rows = [(kind, *(f"{s[kind]:.3f}" for s in result["seconds"].values())) for kind in ORDER]
    rows.append(("all", *(f"{sum(s.values()):.3f}" for s in result["seconds"].values())))
    title = f"### Where the time goes: {result['shape']}, batch {result['batch']}"
    table = _table(("seconds", *result["seconds"]), rows)
    return f"{title}\n\n{_where(result)}\n\n{_picture(result)}\n\n{table}"


def _memory(result: dict[str, Any]) -> str:
    rows = [
        (
            scheme,
            *(
                f"{size[kind] / 1e6:.0f} ({result['ratio'][scheme][kind]:.0%})"
                for kind in ("file", "tensors", "resident")
            ),
        )
        for scheme, size in result["bytes"].items()
    ]
    head = ("scheme", "file, MB", "tensors, MB", "resident after a step, MB")
    return f"### Memory: {result['shape']}\n\n{_where(result)}\n\n{_table(head, rows)}"


def _kernels(result: dict[str, Any]) -> str:
    peak, bound = result["attainable_operations_per_s"], result["theoretical_int8_operations_per_s"]
    roofs = (
        f"Attainable, the best that any product here reached: int8 {peak['int8'] / 1e12:.2f}, "
        f"bf16 {peak['bf16'] / 1e12:.2f} (10¹² operations per second)."
    )
    if bound:
        roofs += f" By the clock, measured at {result['clock_hz'] / 1e9:.2f} GHz: int8 {bound / 1e12:.2f}."
    rows = [
        (
            name,
            f"{1e3 * row['seconds']['int8']['median']:.2f}",
            f"{row['operations_per_s']['int8'] / 1e12:.2f}",
            f"{row['of_attainable']['int8']:.0%}",
            f"{1e3 * row['seconds']['bf16']['median']:.2f}",
            f"{row['seconds']['bf16']['median'] / row['seconds']['int8']['median']:.2f}",
        )
        for name, row in result["layers"].items()
    ]
    head = ("layer, batch 2", "int8, ms", "int8, 10¹² op/s", "of attainable", "bf16, ms", "bf16 / int8")
    return f"### Kernels\n\n{_where(result)}\n\n{roofs}\n\n{_picture(result)}\n\n{_table(head, rows)}"


def _loading(result: dict[str, Any]) -> str:
    rows = [(f"`{result['variant']}`, whole pipeline", f"{result['variant_s']['median']:.3f}", "")]
    for name, seconds in result["unet_s"].items():
        rows.append(
            (f"UNet of {result['shape']}, {name}", f"{seconds['median']:.3f}", f"{result['first_step_s'][name]:.2f}")
        )
    return (
        f"### Loading\n\n{_where(result)}\n\n{_table(('what', 'seconds to load', 'seconds of the first step'), rows)}"
    )


def _gateway(result: dict[str, Any]) -> str:
    rows = [
        (
            row["name"],
            f"{row['answers_per_second']:.0f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            ", ".join(f"{count} x {status}" for status, count in row["statuses"].items()) or "all 200",
        )
        for row in result["rows"]
    ]
    head = ("what", "answers a second", "median, ms", "99th percentile, ms", "statuses")
    load = f"Load average before: {result['load_before']} on {result['machine']['cores']} cores."
    return f"### Answers\n\n{_where(result)} {load}\n\n{_table(head, rows)}"


def _service_step(result: dict[str, Any]) -> str:
    rows = [
        (
            dtype,
            f"`{variant}`",
            *(
                f"{places[place]['median']:.1f} {_range(places[place], 1)}"
                for place in ("service", "process", "engine")
            ),
            f"{result['service/process'][dtype][variant]:.2f}",
        )
        for dtype, variants in result["step_ms"].items()
        for variant, places in variants.items()
    ]
    head = ("dtype", "model", "by POST, ms", "plain process, ms", "denoiser alone, ms", "by POST / process")
    return f"### A step, by place: {result['model']}\n\n{_where(result)}\n\n{_table(head, rows)}"


def _priority(result: dict[str, Any]) -> str:
    rows = [("nothing", "", "", f"{result['alone_s']:.2f} s", "1.00")]
    for kind, beside in result["during"].items():
        rows.append((kind, "all", str(beside["progress_events"]), "", f"{beside['p50_ratio']:.2f}"))
        for stage, each in beside["by_stage"].items():
            rows.append(("", stage, "", f"{each['pictures']} pictures", f"{each['p50_ratio']:.2f}"))
    head = ("beside a picture", "stage", "steps seen", "", "median / alone")
    title = f"### Pictures beside other work: {result['model']}, `{result['variant']}`"
    return f"{title}\n\n{_where(result)}\n\n{_table(head, rows)}"


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    flags = ", ".join(f for f in machine["flags"] if f not in {"avx2", "avx512f", "amx_tile"})
    versions = result.get("versions", {})
    if versions and isinstance(next(iter(versions.values())), dict):
        versions = {name: version for each in versions.values() for name, version in each.items()}
    parts = [f"{machine['processor']} ({flags})", f"{machine['threads']} threads"]
    parts += [f"{result['rounds']} rounds"] if "rounds" in result else []
    parts += [f"seed {result['seed']}"] if "seed" in result else []
    parts += [", ".join(f"{name} {version}" for name, version in versions.items())] if versions else []
    return f"_{'; '.join(parts)}; {result['date']}._"


def _image(result: dict[str, Any]) -> str:
    tail = f"-{result['shape']}-b{result['batch']}" if "batch" in result else ""
    return f"performance-{result['question'].replace('_', '-')}{tail}.svg"


def _picture(result: dict[str, Any]) -> str:
    return f"![{result['question'].replace('_', ' ')}](images/{_image(result)})"


def _range(spread: dict[str, float], digits: int) -> str:
    return f"({spread['q25']:.{digits}f} to {spread['q75']:.{digits}f})"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "unet_step": _unet_step,
    "picture": _picture_times,
    "breakdown": _breakdown,
    "memory": _memory,
    "kernels": _kernels,
    "loading": _loading,
    "gateway": _gateway,
    "service_step": _service_step,
    "priority": _priority,
}
PLOTS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "unet_step": plots.steps,
    "breakdown": plots.breakdown,
    "kernels": plots.roofline,
}


def main(check: Annotated[bool, typer.Option(help="write nothing, fail when the page is out of date")] = False) -> None:
    """Bring docs/performance.md up to date with benchmarks/results."""
    before = PAGE.read_text(encoding="utf-8")
    after = page(before)
    if check:
        if before != after:
            stderr.print("docs/performance.md is not what benchmarks/results says: run `python -m benchmarks.report`")
        raise typer.Exit(int(before != after))
    draw()
    PAGE.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
