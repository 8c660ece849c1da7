#!/usr/bin/env python3
"""Runs the measuring programs and PyTorch in turn on a GPU, and sets their ratios beside the goals.

Every round runs each program of a case once, in a process of its own. Ratios are taken within a round, and their
spread is over the rounds. What doesn't fit into --seconds is left out and reported as not measured: give the cases
by --only in several calls, and put their results together with --merge.
"""

import argparse
import datetime
import json
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from report import (GOAL_HEADER, ProgramError, goal_row, json_lines, machine_table, slug_of, spread,  # noqa: E402
                    write_report)

# name: model, image size, batch, precision; in the order of importance.
CASES = {
    "resnet20-b128": ("resnet20", 32, 128, "bf16"),
    "resnet50-b256": ("resnet50", 224, 256, "bf16"),
    "resnet18-b1024": ("resnet18", 224, 1024, "bf16"),
    "resnet18-b256": ("resnet18", 224, 256, "bf16"),
    "resnet50-b1024": ("resnet50", 224, 1024, "bf16"),
    "resnet50-b256-tf32": ("resnet50", 224, 256, "tf32"),
    "resnet50-b256-fp32": ("resnet50", 224, 256, "fp32"),
}
SECTIONS = ["kernels", *CASES]
QUICK = ["kernels", "resnet20-b128", "resnet18-b256"]

QUANTIZERS = ["sat", "lsq"]
PRECISIONS = ["fp32", "bf16"]  # of what quantizers read and write

# What a program needs at the least, so that starting it with less is waste, and the time after which it has failed.
LEAST_SECONDS = 20
MOST_SECONDS = 240


# --- programs: name -> what training_step or peer_pytorch.py is told ---------------------------------------------


def ours(quantizer, fuse=False, graph=False):
    bits = 32 if quantizer == "none" else 4
    return {"quantizer": quantizer, "bits": bits, "fuse": fuse, "graph": graph}


def programs_of(case, quick):
    """The order is that of a round: what is compared most closely stands together."""
    model, _, _, precision = CASES[case]
    peers = ["eager"] if quick else ["eager", "compile"]
    result = {"qtrain float": ours("none")}
    if model == "resnet20":
        result["qtrain float, graph"] = ours("none", graph=True)
        result["qtrain sat, fused"] = ours("sat", fuse=True)
        result["qtrain sat, fused, graph"] = ours("sat", fuse=True, graph=True)
        peers = ["eager"] if quick else ["eager", "compile", "compile-graphs"]
        quantizers = ["sat"]
    elif precision == "bf16":
        for quantizer in QUANTIZERS:
            result[f"qtrain {quantizer}"] = ours(quantizer)
            result[f"qtrain {quantizer}, fused"] = ours(quantizer, fuse=True)
        quantizers = QUANTIZERS
    else:
        quantizers = []
    for quantizer in ["none", *quantizers]:
        for mode in peers:
            label = "float" if quantizer == "none" else quantizer
            result[f"PyTorch {label}, {mode}"] = {"quantizer": quantizer, "mode": mode}
    return result


def switch(name, on):
    return f"--{name}" if on else f"--no-{name}"


def command_of(case, program, folder, quick):
    model, size, batch, precision = CASES[case]
    if "mode" in program:
        return [sys.executable, HERE / "peer_pytorch.py", model, size, batch, "--quantizer", program["quantizer"],
                "--precision", precision, "--mode", program["mode"], "--steps", 5 if quick else 30]
    return [folder / "training_step", model, size, batch, program["quantizer"], program["bits"], 5 if quick else 50,
            "--device", "cuda", "--precision", precision, switch("fuse", program["fuse"]),
            switch("graph", program["graph"]), "--autotune"]


def kernel_commands(folder, quick):
    size = [256, 2] if quick else [512, 5]
    return {f"{program} {precision}": [folder / program, *size, "--device", "cuda", "--precision", precision]
            for precision in PRECISIONS for program in ("fake_quantize", "quantizers")}


# --- measuring ----------------------------------------------------------------------------------------------------


class Session:
    """Runs programs until the time is up; remembers what failed and doesn't run it again."""

    def __init__(self, arguments):
        self.deadline = time.monotonic() + arguments.seconds
        self.libraries = {"LD_LIBRARY_PATH": arguments.libraries} if arguments.libraries else {}
        self.problems = {}

    def run(self, label, command):
        """The JSON lines, or None."""
        left = self.deadline - time.monotonic()
        if label in self.problems or left < LEAST_SECONDS:
            return None
        print(f"{left:.0f} s left: {label}", file=sys.stderr, flush=True)
        own = command[0] != sys.executable
        try:
            return json_lines(command, self.libraries if own else None, timeout=min(left, MOST_SECONDS))
        except ProgramError as error:
            self.problems[label] = str(error)
            return None


def measure(arguments, sections):
    session = Session(arguments)
    report = {"kernels": {}, "cases": {}}
    for number in range(1 if arguments.quick else arguments.rounds):
        for section in sections:
            if section == "kernels":
                commands = kernel_commands(arguments.programs, arguments.quick)
                into = report["kernels"]
            else:
                programs = programs_of(section, arguments.quick)
                commands = {name: command_of(section, program, arguments.programs, arguments.quick)
                            for name, program in programs.items()}
                into = report["cases"].setdefault(section, {})
            for name, command in commands.items():
                lines = session.run(f"{section}: {name}", command)
                # Rounds by number, so that ratios find what ran in the same one.
                if lines is not None:
                    into.setdefault(name, {})[str(number)] = lines if section == "kernels" else lines[-1]
    report["problems"] = session.problems
    return report


# --- ratios -------------------------------------------------------------------------------------------------------


def ratio(runs, field, top, bottoms):
    """The spread over the rounds of top's figure over the largest one of the bottoms; None where nothing was run."""
    values = []
    for number, run in runs.get(top, {}).items():
        others = [runs[name][number][field] for name in bottoms if number in runs.get(name, {})]
        if others:
            values.append(run[field] / max(others))
    return spread(values) if values else None


def goals_of_case(case, runs):
    """(label, spread or None, goal or None, whether more is better)."""
    model, _, _, precision = CASES[case]

    def fastest_peer(label, top, goal):
        peers = [name for name in runs if name.startswith(f"PyTorch {label},")]
        return (f"{case}: {top} over PyTorch's fastest {label}", ratio(runs, "images_per_second", top, peers), goal,
                True)

    def over_float(what, top, field, goal):
        return f"{case}: {what} of {top} over float", ratio(runs, field, top, ["qtrain float"]), goal, False

    if model == "resnet20":
        rows = [(f"{case}: {with_graph} over the same without",
                 ratio(runs, "images_per_second", with_graph, [with_graph.removesuffix(", graph")]), 3.0, True)
                for with_graph in ("qtrain float, graph", "qtrain sat, fused, graph")]
        return [*rows, fastest_peer("float", "qtrain float, graph", None),
                fastest_peer("sat", "qtrain sat, fused, graph", None)]
    rows = [fastest_peer("float", "qtrain float", 1.0 if precision == "bf16" else None)]
    if precision == "bf16":
        for quantizer in QUANTIZERS:
            plain, fused = f"qtrain {quantizer}", f"qtrain {quantizer}, fused"
            rows += [fastest_peer(quantizer, fused, 2.0), over_float("step time", plain, "ms", 1.25),
                     over_float("step time", fused, "ms", 1.08),
                     over_float("peak memory", plain, "peak_tensors_mb", 1.10),
                     over_float("peak memory", fused, "peak_tensors_mb", 1.10)]
    return rows


COPY_GOAL = 0.85


def goals_of_kernels(kernels):
    def shares(name, chosen, direction):
        lines = [line for round_lines in kernels.get(name, {}).values() for line in round_lines if chosen(line)]
        return spread([line[f"{direction}_share"] for line in lines]) if lines else None

    def large(line):  # a tensor that stays in the cache has no bandwidth of the memory
        return line["megabytes"] > 64

    def lsq_activation(line):
        return (line["quantizer"], line["role"]) == ("lsq", "activation")

    return [(f"kernels: {quantizer} activation {direction}, {precision}, over a copy",
             shares(f"{program} {precision}", chosen, direction), COPY_GOAL, True)
            for precision in PRECISIONS
            for quantizer, program, chosen in (("sat", "fake_quantize", large), ("lsq", "quantizers", lsq_activation))
            for direction in ("forward", "backward")]


def goal_table(report, sections):
    rows = []
    for section in sections:
        rows += (goals_of_kernels(report["kernels"]) if section == "kernels" else
                 goals_of_case(section, report["cases"].get(section, {})))
    return [*GOAL_HEADER, *(goal_row(*row) for row in rows)]


# --- the report ---------------------------------------------------------------------------------------------------


def case_table(case, runs):
    model, size, batch, precision = CASES[case]
    lines = [f"## {model} {size}x{size}, batch {batch}, {precision}", "",
             "| | images/s | ms a step | peak of tensors, MB | host waits in steps | warm-up, s |", "|---|---|---|---|---|---|"]
    for program, rounds in runs.items():
        def middle(field, digits=1):
            values = [run[field] for run in rounds.values() if field in run]
            return f"{statistics.median(values):.{digits}f}" if values else ""

        speed = spread([run["images_per_second"] for run in rounds.values()])
        lines.append(f"| {program} | {speed['median']:.0f} [{speed['min']:.0f}, {speed['max']:.0f}] | {middle('ms')} | "
                     f"{middle('peak_tensors_mb')} | {middle('device_waits_in_steps', 0)} | "
                     f"{middle('warm_up_seconds')} |")
    return [*lines, ""]


def kernel_tables(kernels):
    lines = []
    for precision in PRECISIONS:
        rounds = list(kernels.get(f"fake_quantize {precision}", {}).values())
        if rounds:
            lines += [f"## Fake-quantize of sat, 4 bits, {precision}, GB/s", "",
                      "| MB | forward's copy | activation forward | backward's copy | activation backward | "
                      "weight forward | weight backward |", "|---|---|---|---|---|---|---|"]
            fields = ["megabytes", "scale_gbs", "forward_gbs", "add_gbs", "backward_gbs", "weight_forward_gbs",
                      "weight_backward_gbs"]
            for i in range(len(rounds[0])):
                lines.append("| " + " | ".join(middle_of(rounds, i, field, 0) for field in fields) + " |")
            lines.append("")
        rounds = list(kernels.get(f"quantizers {precision}", {}).values())
        if rounds:
            lines += [f"## Every quantizer, {precision}, share of a copy", "",
                      "| quantizer | role | bits | forward | backward |", "|---|---|---|---|---|"]
            for i, first in enumerate(rounds[0]):
                shares = [middle_of(rounds, i, f"{way}_share", 2) for way in ("forward", "backward")]
                lines.append(f"| {first['quantizer']} | {first['role']} | {first['bits']} | {' | '.join(shares)} |")
            lines.append("")
    return lines


def middle_of(rounds, i, field, digits):
    """The median over the rounds of a figure in their i-th lines."""
    return f"{statistics.median([lines[i][field] for lines in rounds]):.{digits}f}"


def write(report, sections, arguments):
    goals = goal_table(report, sections)
    lines = ["# Speed and memory on a GPU", "", *machine_table(report["machine"]), "",
             "What the figures mean: bench/README.md. The raw ones are in the JSON file beside this one.", "",
             "## Goals", "", *goals, ""]
    if report["problems"]:
        goals += ["", *(f"failed: {label}: {problem}" for label, problem in report["problems"].items())]
        lines += ["What failed:", "", *(f"- {label}: {problem}" for label, problem in report["problems"].items()), ""]
    for case, runs in report["cases"].items():
        lines += case_table(case, runs)
    lines += kernel_tables(report["kernels"])
    suffix = "" if arguments.only is None else "-" + "-".join(arguments.only)
    name = f"{report['machine']['date']}-{slug_of(report['machine'].get('gpu', 'gpu').split(',')[0])}{suffix}"
    write_report(report, lines, arguments.results, name, shown=goals)


def gpu_state():
    """Clock, temperature and power now: a GPU that is hot or held back shows here."""
    try:
        return subprocess.run(["nvidia-smi", "--query-gpu=clocks.sm,temperature.gpu,power.draw",
                               "--format=csv,noheader"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe_machine(file):
    """From lines "name: value"."""
    pairs = [line.split(": ", 1) for line in file.read_text().splitlines() if ": " in line] if file else []
    return {"date": datetime.date.today().isoformat(), **dict(pairs)}


def merge(files):
    """The reports of several calls on one machine as one."""
    reports = [json.loads(file.read_text()) for file in files]
    merged = {"machine": reports[0]["machine"], "kernels": {}, "cases": {}, "problems": {}}
    for report in reports:
        for part in ("kernels", "cases", "problems"):
            merged[part] |= report[part]
    return merged


def section_list(text):
    sections = text.split(",")
    for section in sections:
        if section not in SECTIONS:
            raise argparse.ArgumentTypeError(f"'{section}' is none of {', '.join(SECTIONS)}")
    return sections


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=pathlib.Path, help="folder of training_step and the others")
    parser.add_argument("--libraries", default="", help="their LD_LIBRARY_PATH")
    parser.add_argument("--machine", type=pathlib.Path, help="file that describes the machine")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--only", type=section_list, help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="one short round of a few cases: to see that all runs")
    parser.add_argument("--merge", type=pathlib.Path, nargs="+", metavar="JSON", help="measure nothing: put results together")
    parser.add_argument("--results", type=pathlib.Path, default=HERE.parent / "results")
    parser.add_argument("--dry-run", action="store_true", help="print the commands of one round")
    arguments = parser.parse_args()
    if not arguments.merge and arguments.programs is None:
        parser.error("--programs is needed")
    return arguments


def main():
    arguments = parse_arguments()
    sections = arguments.only or (QUICK if arguments.quick else SECTIONS)
    if arguments.dry_run:
        for section in sections:
            commands = (kernel_commands(arguments.programs, arguments.quick).values() if section == "kernels" else
                        [command_of(section, program, arguments.programs, arguments.quick)
                         for program in programs_of(section, arguments.quick).values()])
            print(f"{section}:", *(" ".join(map(str, command)) for command in commands), sep="\n  ")
        return
    if arguments.merge:
        report = merge(arguments.merge)
    else:
        machine = describe_machine(arguments.machine)
        machine["clock, temperature, power before"] = gpu_state()
        report = {"machine": machine, **measure(arguments, sections)}
        machine["and after"] = gpu_state()
    write(report, sections, arguments)


if __name__ == "__main__":
    main()
