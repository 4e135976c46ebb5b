"""Compiles the native kernels: `python -m quant.engine.native.compilation`. Needs g++ 12 or newer, half a minute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from quant.engine.native.library import BUILD, SOURCE, library_path

FLAGS = [
    "-std=c++20", "-O3", "-fPIC", "-fopenmp", "-ffp-contract=fast", "-Wall", "-Wno-uninitialized",
    "-Wno-maybe-uninitialized", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mavx512bf16",
    "-mamx-tile", "-mamx-int8", "-mamx-bf16",
]  # fmt: skip
"""The two warnings are false ones that g++ 12 gives inside its own vector headers."""


def compile_kernels() -> Path:
    """Compiles and links unless that was done before; returns the library's path.

    Raises RuntimeError with the compiler's words when it fails or is not there."""
    target = library_path()
    if target.is_file():
        return target
    compiler = shutil.which("g++")
    if compiler is None:
        raise RuntimeError(
            "g++ is not installed: quantized layers run on oneDNN alone, the passes around them in torch"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    torch_folder = Path(torch.__file__).parent
    includes = [f"-I{torch_folder / 'include'}", f"-I{torch_folder / 'include/torch/csrc/api/include'}"]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        sources = sorted(SOURCE.glob("*.cpp"))
        objects = [Path(folder) / f"{source.stem}.o" for source in sources]
        commands = [
            [compiler, *FLAGS, *includes, "-c", str(source), "-o", str(to)]
            for source, to in zip(sources, objects, strict=True)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        linked = Path(folder) / target.name
        libraries = torch_folder / "lib"
        # The same OpenMP runtime as torch's: two of them would keep two sets of threads.
        openmp = sorted(libraries.glob("libgomp*"))[0]
        _run([
            compiler, "-shared", *map(str, objects), "-o", str(linked), f"-L{libraries}", "-ltorch_cpu", "-lc10",
            str(openmp), f"-Wl,-rpath,{libraries}",
        ])  # fmt: skip
        linked.replace(target)
    for old in BUILD.glob("*.so"):  # in the user's cache folder they may be another environment's
        if old != target and target.parent == BUILD:
            old.unlink()
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:1])} failed:\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    try:
        sys.stdout.write(f"native kernels: {compile_kernels()}\n")
    except RuntimeError as error:
        sys.stderr.write(f"native kernels not compiled: {error}\n")
