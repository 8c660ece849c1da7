#!/usr/bin/env python3
"""Trains ResNet-20 on the demo set with every quantizer, and writes the top-1 of each as a table.

    bench/accuracy.py [BUILD_FOLDER] [--seeds 3] [--jobs 2] [--only NAME,...] [--output docs/quantizers/accuracy.md]

For every seed a float network is trained first; every quantizer then starts from it, as the papers' recipes do.
Finished runs stay in runs/accuracy/ and are not repeated, so it can be stopped and started again.
"""

import argparse
import concurrent.futures
import csv
import json
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNS = pathlib.Path("runs/accuracy")
BITS = (4, 2, 1)
COMMON = "--model resnet20 --image-size 32 --threads 1 --workers 1".split()
FLOAT = "--epochs 20 --lr 0.06".split()
QUANTIZED = "--epochs 4 --lr 0.015".split()
# What a quantizer needs beside its defaults, at some widths: (name, widths, flags). TEMPLATE says why.
OWN = [
    ("adabits", (2,), "--set bits_list=2 --set weight.scheme=centered --set activation.alpha=3"),
    ("adabits", (1,), "--set bits_list=1 --set weight.scheme=centered --set activation.alpha=1"),
    ("dsq", (2,), "--first-layer float --set activation.upper=2 --set activation.lower=0 "
                  "--set weight.upper=0.2 --set weight.lower=-0.2"),
    ("dsq", (1,), "--first-layer float --set activation.upper=1 --set activation.lower=0 "
                  "--set weight.upper=0.1 --set weight.lower=-0.1 --set momentum=0.01"),
    ("fatnn", (2,), "--set activation.scale=1.5"),
    ("fixed-point", (2,), "--set weight.delta=0.125 --set activation.delta=1"),
    ("lsq", (4, 2), "--set parametrization=step"),
    ("mixed-pow2", (2,), "--set weight.d_init=0.125 --set activation.d_init=0.25"),
    ("mixed-uniform", (2,), "--set weight.d_init=0.125 --set activation.d_init=1"),
    ("pow2", (2,), "--set weight.m=-3 --set activation.m=0"),
    ("sat", (2,), "--set weight.scheme=centered --set activation.alpha=3"),
    ("sat", (1,), "--set weight.scheme=centered --set activation.alpha=1"),
    ("uniform", (2, 1), "--first-layer float"),
    ("xnor", (1,), "--relu off --set activation.padding_after_quant=true"),
]

PAGES = dict.fromkeys(("fixed-point", "pow2", "mixed-uniform", "mixed-pow2"), "mixed-precision")


def folder_of(name, bits, seed):
    return RUNS / (f"float-seed{seed}" if name == "float" else f"{name}-{bits}bit-seed{seed}")


def command(name, bits, seed):
    own = [*COMMON, "--seed", str(seed), "--output", str(folder_of(name, bits, seed))]
    if name == "float":
        return ["train", *own, *FLOAT]
    start = str(folder_of("float", 32, seed) / "last.safetensors")
    flags = [f for n, widths, text in OWN if n == name and bits in widths for f in text.split()]
    return ["train", *own, *QUANTIZED, "--init", start, "--quant", name, "--bits", str(bits), *flags]


def run(program, name, bits, seed):
    """The last epoch's top-1 in percent, or why the run was refused. RuntimeError where one stopped half-way."""
    folder = ROOT / folder_of(name, bits, seed)
    done = folder / "done"
    if not done.exists():
        call = command(name, bits, seed)
        if (folder / "last.safetensors").exists():
            call = ["train", "--resume", str(folder_of(name, bits, seed))]
        result = subprocess.run([program, *call], capture_output=True, text=True, cwd=ROOT)
        if result.returncode != 0 and folder.exists():
            raise RuntimeError(f"{folder}: {result.stderr}")
        folder.mkdir(parents=True, exist_ok=True)
        done.write_text("" if result.returncode == 0 else result.stderr.strip().splitlines()[-1])
    reason = done.read_text()
    if reason:
        return reason
    with open(folder / "epochs.csv") as file:
        return 100 * float(list(csv.DictReader(file))[-1]["val_top1"])


def cell(results):
    if any(isinstance(r, str) for r in results):  # it doesn't have that width
        return "–"
    spread = f" ± {statistics.stdev(results):.1f}" if len(results) > 1 else ""
    return f"{statistics.mean(results):.1f}{spread}"


def text_of(arguments):
    return "qtrain " + " ".join(arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?", default=ROOT / "build", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=pathlib.Path)
    options = parser.parse_args()
    program = options.build.resolve() / "cli/qtrain"
    listing = subprocess.run([program, "list", "quantizers", "--json"], capture_output=True, check=True).stdout
    names = options.only.split(",") if options.only else [
        q["name"] for q in json.loads(listing)["quantizers"] if q["name"] != "none"
    ]
    seeds = range(options.seeds)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        float_runs = list(pool.map(lambda seed: run(program, "float", 32, seed), seeds))
        print("float", float_runs, flush=True)
        jobs = {(n, b, s): pool.submit(run, program, n, b, s) for s in seeds for n in names for b in BITS}
        rows = []
        for name in names:
            results = {b: [jobs[name, b, s].result() for s in seeds] for b in BITS}
            print(name, results, flush=True)
            rows.append([f"[{name}]({PAGES.get(name, name)}.md)", *(cell(results[b]) for b in BITS)])
    heading = ["", *(f"{b} bit{'s' if b > 1 else ''}" for b in BITS)]
    rows = [["float", *[cell(float_runs)] * len(BITS)], *rows]
    table = "".join("| " + " | ".join(row) + " |\n" for row in [heading, ["---"] * len(heading), *rows])
    print(table)
    if options.output:
        own = "".join(f"| {name} | {', '.join(map(str, widths))} | `{flags}` |\n" for name, widths, flags in OWN)
        page = TEMPLATE.format(
            seeds=options.seeds, table=table, own=own,
            float_command=text_of(command("float", 32, 0)), command=text_of(command("sat", 4, 0)),
        )
        options.output.write_text(page)


TEMPLATE = """# Accuracy on the demo set

Top-1 in percent after the last epoch, ResNet-20 at 32x32, the demo set's 1000 validation images: mean and
standard deviation of {seeds} seeds. Weights and activations have the same width. `–`: the quantizer has no such
width. These are small runs on an easy set: they show that a quantizer trains and what a width costs, not how the
papers' methods compare on ImageNet.

{table}
Every row starts from the float network of its seed, as most of the papers do, and trains 4 epochs more with the
quantizer's defaults:

    {float_command}
    {command}

Beside the defaults, at these widths:

| | bits | flags |
|---|---|---|
{own}
Why they are needed, and what doesn't train:

- A range that is wide at 4 bits is too wide at 2: with one level up, everything below half of it is 0. So the first clipping
  level of sat and adabits (8 by default), the first steps of the grids (from the largest weight) and dsq's bounds (none: min
  and max) are set smaller. fatnn's range is too narrow: its default cuts inputs at 1.
- afp and ttq quantize weights only. dorefa cuts inputs at 1 for good, pact learns where. The widths of mixed-uniform and
  mixed-pow2 follow their learned ranges; the number of bits is where they start.
- lsq is the paper's, with a learned step, at 4 and 2 bits; at 1 bit, where a step has no levels on both sides, QTool's.
- sat's `modified` rounds weights down. At 2 bits that moves every filter's mean by half a level, so that all channels follow
  the sum of their inputs: 10% after an epoch whether inputs have 2 or 8 bits, or an overflow in the first step.
- dsq and uniform quantize the first layer's input too, whose 8 bits matter.
- dsq trains with 0.9 of the first bounds and 0.1 of the learned ones, and evaluates with the first (as published): at 1 bit
  the two must stay close, hence the momentum.
- uniform at 1 bit: inputs below half of the largest become 0, nearly all of them. Its weights alone do train:
  98.2% with inputs of 8 bits, after 2 epochs, with one seed.
- mixed-pow2 passes gradients to inputs between its smallest and largest level only: at 2 bits those within one octave, until
  xmin has been learned; at 1 bit, with one magnitude, none.
- xnor needs signs, so no ReLU before it; the network that it starts from was trained with them.

`bench/accuracy.py --output docs/quantizers/accuracy.md` trains all of them and writes this page.
"""


if __name__ == "__main__":
    main()
