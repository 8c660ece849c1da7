#!/usr/bin/env python3
"""Trains ResNet-20 on the demo set with every quantizer, and writes the top-1 of each as a table.

    bench/accuracy.py [BUILD_FOLDER] [--epochs 10] [--seeds 3] [--only NAME,...] [--output docs/quantizers/accuracy.md]

Finished runs stay in runs/accuracy/ and are not repeated, so it can be stopped and started again.
"""

import argparse
import csv
import json
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs/accuracy"
BITS = (4, 2, 1)
COMMON = "--model resnet20 --image-size 32 --threads 1 --workers 1".split()
# What a quantizer needs beside its defaults to start from random weights; each is explained on its page.
FLAGS = {
    "lsq": "--set parametrization=step".split(),
    "xnor": "--relu off --set activation.padding_after_quant=true".split(),
}


def command(name, bits, seed, epochs):
    if name == "float":
        quantizer = []
    else:
        quantizer = ["--quant", name, "--bits", str(bits), *FLAGS.get(name, [])]
    return ["train", *COMMON, "--epochs", str(epochs), "--seed", str(seed), *quantizer]


def top1(folder):
    """The last epoch's top-1 in percent; None unless the run is complete."""
    if not (folder / "done").exists():
        return None
    with open(folder / "epochs.csv") as file:
        return 100 * float(list(csv.DictReader(file))[-1]["val_top1"])


def run(program, name, bits, seed, epochs):
    folder = RUNS / f"{name}-{bits}-seed{seed}-epochs{epochs}"
    if (folder / "failed").exists():
        return (folder / "failed").read_text()
    if top1(folder) is None:
        if (folder / "last.safetensors").exists():
            call = [program, "train", "--resume", folder]
        else:
            call = [program, *command(name, bits, seed, epochs), "--output", folder]
        done = subprocess.run(call, capture_output=True, text=True)
        reason = None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ("failed" if reason else "done")).write_text(reason or "")
        if reason:
            return reason
    return top1(folder)


def cell(results):
    if any(isinstance(r, str) for r in results):  # status 2 at the start: it doesn't have that width
        return "stopped" if any("step" in r for r in results if isinstance(r, str)) else "–"
    spread = f" ± {statistics.stdev(results):.1f}" if len(results) > 1 else ""
    return f"{statistics.mean(results):.1f}{spread}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?", default=ROOT / "build", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=pathlib.Path)
    options = parser.parse_args()
    program = options.build / "cli/qtrain"
    listed = json.loads(subprocess.run([program, "list", "quantizers", "--json"], capture_output=True, check=True).stdout)["quantizers"]
    names = [q["name"] for q in listed if q["name"] != "none"]
    chosen = options.only.split(",") if options.only else ["float", *names]
    rows = []
    for name in chosen:
        cells = []
        for bits in (32,) if name == "float" else BITS:
            results = [run(program, name, bits, seed, options.epochs) for seed in range(options.seeds)]
            print(name, bits, results, flush=True)
            cells.append(cell(results))
        rows.append([name, *(cells if name != "float" else cells * 3)])
    table = "| | " + " | ".join(f"{b} bit{'s' if b > 1 else ''}" for b in BITS) + " |\n|---|---|---|---|\n"
    table += "".join("| " + " | ".join(row) + " |\n" for row in rows)
    if options.output:
        options.output.write_text(table)
    print(table)


if __name__ == "__main__":
    main()
