#!/usr/bin/python3
"""Runs the measuring programs and PyTorch in turn and writes a table and the raw figures to bench/results/.

Every round runs each program once, in a process of its own (warm-up, then N steps, of which it reports the median).
A ratio is taken within each round and then over the rounds, so that a machine that slows down for a while slows both
sides; its spread is the smallest and the largest of the rounds.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

import compare_loader
from report import (GOAL_HEADER, HERE, ProgramError, commit_of_sources, goal_row, json_lines, machine_table, slug_of,
                    spread, write_report)

LIBRARIES = pathlib.Path("/usr/lib") / f"{platform.machine()}-linux-gnu"

# model, image size, batch, steps a round
NETWORKS = [("resnet18", 224, 16, 5), ("resnet18", 64, 64, 9), ("resnet20", 32, 128, 15)]

# In the order of a round: what is compared most closely stands together.
PROGRAMS = {
    "pytorch_tuned": "PyTorch float32, tuned",
    "float32": "qtrain float32",
    "onednn_limit": "oneDNN limit, float32, channels-last",
    "sat": "qtrain sat W4A4",
    "pytorch_tuned_channels_last": "PyTorch float32, tuned, channels_last",
    "pytorch_default": "PyTorch float32",
    "pytorch_channels_last": "PyTorch float32, channels_last",
    "pytorch_sat": "PyTorch SAT W4A4, eager, tuned",
}
FLOAT_PEERS = ["pytorch_tuned", "pytorch_tuned_channels_last", "pytorch_default", "pytorch_channels_last"]

SPEED_GOAL = {("resnet18", 224): 1.10, ("resnet18", 64): 1.10, ("resnet20", 32): 1.25}
QUANTIZED_GOAL = {"resnet18": 1.10, "resnet20": 1.18}


def command_of(program, build, network, steps):
    model, size, batch, _ = network
    common = [model, size, batch]
    if program == "onednn_limit":
        return [build / "bench/onednn_limit", *common, steps]
    if program.startswith("pytorch_"):
        return ["/usr/bin/python3", HERE / "peer_pytorch.py", *common, program.removeprefix("pytorch_"), steps]
    quantizer = ["none", 32] if program == "float32" else [program, 4]
    return [build / "bench/training_step", *common, *quantizer, steps]


def environment_of(program):
    """The BLAS is chosen by folder: which one Debian's alternatives point to differs between machines."""
    if program in ("pytorch_default", "pytorch_channels_last"):
        return {"LD_LIBRARY_PATH": f"{LIBRARIES}/blas:{LIBRARIES}/lapack"}
    if program.startswith("pytorch_"):
        return {"LD_LIBRARY_PATH": f"{LIBRARIES}/openblas-pthread",
                "LD_PRELOAD": f"{LIBRARIES}/libtcmalloc_minimal.so.4"}
    return {}


def measure_training(build, rounds, quick):
    results = []
    for network in NETWORKS:
        model, size, batch, steps = network
        runs = {program: [] for program in PROGRAMS}
        for number in range(rounds):
            for program in PROGRAMS:
                print(f"{model} {size}x{size} b{batch}, round {number + 1} of {rounds}: {PROGRAMS[program]}",
                      file=sys.stderr)
                lines = json_lines(command_of(program, build, network, 3 if quick else steps),
                                   environment_of(program))
                runs[program].append(lines[-1])
        results.append({"model": model, "size": size, "batch": batch, "runs": runs, "ratios": ratios_of(runs)})
    return results


def ratios_of(runs):
    def ratio(top, bottom, field="images_per_second"):
        return spread([a[field] / b[field] for a, b in zip(runs[top], runs[bottom])])

    fastest = [max(runs[peer][i]["images_per_second"] for peer in FLOAT_PEERS)
               for i in range(len(runs["float32"]))]
    return {
        "speed_over_pytorch_tuned": ratio("float32", "pytorch_tuned"),
        "speed_over_fastest_pytorch": spread(
            [run["images_per_second"] / best for run, best in zip(runs["float32"], fastest)]),
        "speed_over_onednn_limit": ratio("float32", "onednn_limit"),
        "sat_time_over_float32": ratio("sat", "float32", "ms"),
        "sat_speed_over_pytorch_sat": ratio("sat", "pytorch_sat"),
        "pytorch_sat_time_over_float32": ratio("pytorch_sat", "pytorch_tuned", "ms"),
        "sat_memory_over_float32": ratio("sat", "float32", "peak_rss_mb"),
        "sat_memory_over_pytorch_float32": ratio("sat", "pytorch_tuned", "peak_rss_mb"),
    }


def goals_of(result):
    """(label, spread, goal, whether more is better) of each ratio that has a goal."""
    r = result["ratios"]
    return [
        ("float32 speed over PyTorch tuned", r["speed_over_pytorch_tuned"],
         SPEED_GOAL[result["model"], result["size"]], True),
        ("float32 speed over the oneDNN limit", r["speed_over_onednn_limit"], 0.90, True),
        ("sat step time over float32", r["sat_time_over_float32"], QUANTIZED_GOAL[result["model"]], False),
        ("sat peak memory over float32", r["sat_memory_over_float32"], 1.15, False),
        ("sat peak memory over PyTorch float32", r["sat_memory_over_pytorch_float32"], 1.0, False),
    ]


# Others' share of the processors above which a run counts as disturbed.
QUIET_SHARE = 0.03


def training_tables(results):
    lines = ["## Training step", "",
             "Medians of the rounds, [smallest, largest]. Forward, loss, backward, SGD with momentum and weight decay.",
             ""]
    for result in results:
        lines += [f"### {result['model']} {result['size']}x{result['size']}, batch {result['batch']}", "",
                  "| | images/s | ms a step | peak resident MB |", "|---|---|---|---|"]
        for program, runs in result["runs"].items():
            speed, ms = (spread([run[field] for run in runs]) for field in ("images_per_second", "ms"))
            memory = f"{statistics.median([r['peak_rss_mb'] for r in runs]):.0f}" if "peak_rss_mb" in runs[0] else ""
            lines.append(f"| {PROGRAMS[program]} | {speed['median']:.1f} [{speed['min']:.1f}, {speed['max']:.1f}] | "
                         f"{ms['median']:.1f} | {memory} |")
        lines += ["", *GOAL_HEADER, *(goal_row(*goal) for goal in goals_of(result)), ""]
        r = result["ratios"]
        others = {"float32 speed over the fastest PyTorch float32 of each round": "speed_over_fastest_pytorch",
                  "sat speed over PyTorch's SAT": "sat_speed_over_pytorch_sat",
                  "PyTorch's SAT step time over its float32": "pytorch_sat_time_over_float32"}
        lines += [f"- {label}: {r[key]['median']:.2f} ({r[key]['min']:.2f} to {r[key]['max']:.2f})"
                  for label, key in others.items()]
        allocations = max(run["system_allocations_after_step_2"]
                          for program in ("float32", "sat") for run in result["runs"][program])
        lines += [f"- allocations from the system after the second step: {allocations}", ""]
        limit = result["runs"]["onednn_limit"]
        parts = {key[:-3]: statistics.median([run[key] for run in limit]) for key in limit[0]
                 if key.endswith("_ms") and not key.startswith("ms")}
        lines += ["Where the oneDNN limit's time goes, ms: " +
                  ", ".join(f"{name.replace('_', ' ')} {ms:.1f}" for name, ms in parts.items()) + ".", ""]
    return lines


def quantize_tables(rounds):
    lines = ["## Fused fake-quantize (sat, 4 bits)", "",
             "GB/s; the share is of a plain loop with the same streams in the same run (`scale` and `add`). Weights "
             "count the bytes of an ideal single pass too, but need two (the largest tanh first) and a tanh an element.",
             ""]
    for size in range(len(rounds[0])):
        runs = [lines_of_round[size] for lines_of_round in rounds]
        middle = {key: statistics.median([run[key] for run in runs]) for key in runs[0]}
        lines += [f"### {middle['megabytes']:g} MB a tensor", "",
                  "| scale | activation forward | add | activation backward | weight forward | weight backward |",
                  "|---|---|---|---|---|---|",
                  "| " + " | ".join(f"{middle[key]:.1f}" for key in (
                      "scale_gbs", "forward_gbs", "add_gbs", "backward_gbs", "weight_forward_gbs",
                      "weight_backward_gbs")) + " |", "", *GOAL_HEADER]
        # The goal is a share of the memory's bandwidth: it has no meaning for a tensor that stays in cache.
        goal = 0.80 if middle["megabytes"] > 32 else None
        for direction, loop in (("forward", "scale"), ("backward", "add")):
            lines.append(goal_row(f"activation {direction} over {loop}",
                                  spread([run[f"{direction}_share"] for run in runs]), goal, True))
            shares = [run[f"weight_{direction}_gbs"] / run[f"{loop}_gbs"] for run in runs]
            lines.append(goal_row(f"weight {direction} over {loop}", spread(shares), None, True))
        lines.append("")
    return lines


# The networks whose step every quantizer is timed in.
QUANTIZER_NETWORKS = [network for network in NETWORKS if network[:2] in (("resnet18", 64), ("resnet20", 32))]


def measure_quantizers(build, rounds, quick):
    """Bandwidth of every quantizer and role, and the training step of every quantizer beside float32."""
    size = [64, 3] if quick else [256, 5]
    passes = [json_lines([build / "bench/quantizers", *size]) for _ in range(rounds)]
    names = list(dict.fromkeys(line["quantizer"] for line in passes[0]))
    names.append("xnor:padding_after_quant=true")  # as in its recipe
    steps = []
    for network in QUANTIZER_NETWORKS:
        model, image, batch, count = network
        runs = {name: [] for name in ["none", *names]}

        def step_of(name):
            print(f"{model} {image}x{image} b{batch}, round {len(runs['none']) + 1} of {rounds}: {name}", file=sys.stderr)
            command = [build / "bench/training_step", model, image, batch, name, 4, 3 if quick else count]
            return json_lines(command)[-1]

        for _ in range(rounds):
            # float32 now and then, and the median of these runs: a round is long enough for the machine to drift.
            plain = []
            for i, name in enumerate(names):
                if i % 4 == 0:
                    plain.append(step_of("none"))
                runs[name].append(step_of(name))
            runs["none"].append(sorted(plain, key=lambda run: run["ms"])[len(plain) // 2])
        ratios = {name: {field: spread([run[field] / plain[field] for run, plain in zip(runs[name], runs["none"])])
                         for field in ("ms", "peak_tensors_mb")} for name in names}
        steps.append({"model": model, "size": image, "batch": batch, "runs": runs, "ratios": ratios})
    return {"passes": passes, "steps": steps}


def quantizers_tables(result):
    rounds = result["passes"]
    lines = ["## Quantizers", "",
             f"Forward and backward on a tensor of {rounds[0][0]['megabytes']:.0f} MB, default options; GB/s counts the "
             "bytes of an ideal single pass. The share is of a plain loop with the same streams in the same run "
             "(b = s a; c = a + b): medians of the rounds, [smallest, largest].", "",
             "| quantizer | role | bits | forward GB/s | share | backward GB/s | share |", "|---|---|---|---|---|---|---|"]
    for i, first in enumerate(rounds[0]):
        cells = [first["quantizer"], first["role"], str(first["bits"])]
        for direction in ("forward", "backward"):
            gbs, share = (spread([lines_of_round[i][f"{direction}_{field}"] for lines_of_round in rounds])
                          for field in ("gbs", "share"))
            cells += [f"{gbs['median']:.1f}", f"{share['median']:.2f} [{share['min']:.2f}, {share['max']:.2f}]"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "### Training step over float32", "",
              "4 bits, or the nearest number of bits that the quantizer has; time and the tensors' peak memory, as "
              "multiples of the float32 step of the same round.", "",
              "| quantizer | " + " | ".join(f"{s['model']} {s['size']}x{s['size']} b{s['batch']}, time | memory"
                                            for s in result["steps"]) + " |",
              "|---|" + "---|---|" * len(result["steps"])]
    for name in result["steps"][0]["ratios"]:
        cells = [name]
        for step in result["steps"]:
            time, memory = step["ratios"][name]["ms"], step["ratios"][name]["peak_tensors_mb"]
            cells += [f"{time['median']:.2f} [{time['min']:.2f}, {time['max']:.2f}]", f"{memory['median']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


class OtherLoad:
    """The share of the machine's processors that others use while this program and its children run."""

    def __init__(self):
        self.start = self.seconds()

    @staticmethod
    def seconds():
        """(busy anywhere, all, ours): summed over the processors; a host that takes time away counts as busy."""
        ticks = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        per_second = os.sysconf("SC_CLK_TCK")
        return (sum(ticks) - ticks[3] - ticks[4]) / per_second, sum(ticks) / per_second, sum(os.times()[:4])

    def share(self):
        busy, total, ours = (now - then for now, then in zip(self.seconds(), self.start))
        return max(0.0, (busy - ours) / total) if total > 0 else 0.0


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def compiler_of(build):
    """The first line of what the build's compiler says of itself."""
    command = json.loads((build / "compile_commands.json").read_text())[0]["command"].split()
    compiler = command[1] if command[0].endswith("ccache") else command[0]
    return subprocess.run([compiler, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[0]


def describe_machine(build, threads):
    return {"date": datetime.date.today().isoformat(), "cpu": cpu_model(), "cores": os.cpu_count(),
            "threads": threads, "kernel": platform.release(),
            "compiler": compiler_of(build), "commit": commit_of_sources(),
            "load_average_at_start": round(os.getloadavg()[0], 2)}


def versions_of(report):
    versions = compare_loader.versions(report["loader"]) if "loader" in report else {}
    for result in report.get("training", []):
        return {**versions, "onednn": result["runs"]["onednn_limit"][0]["onednn"],
                "pytorch": result["runs"]["pytorch_default"][0]["torch"]}
    return versions


def write(report, folder):
    lines = ["# Speed and memory", "", *machine_table(report["machine"])]
    if report["machine"]["cpu_share_of_others"] > QUIET_SHARE:
        lines += ["", "**The machine was not idle: other processes took part of it, and threads that wait for each "
                  "other suffer most. These figures show that the programs run, nothing else.**"]
    lines += ["", "What the figures mean: bench/README.md. The raw ones are in the JSON file beside this one.", ""]
    if "training" in report:
        lines += training_tables(report["training"])
    if "quantize" in report:
        lines += quantize_tables(report["quantize"])
    if "quantizers" in report:
        lines += quantizers_tables(report["quantizers"])
    if "loader" in report:
        lines += compare_loader.tables(report["loader"])
    machine = report["machine"]
    write_report(report, lines, folder, f"{machine['date']}-{slug_of(machine['cpu'])}-{machine['cores']}core")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path, help="folder of a release build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=["training", "quantize", "quantizers", "loader"])
    parser.add_argument("--quick", action="store_true", help="one short round: to see that everything runs")
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    build = arguments.build.resolve()
    rounds = 1 if arguments.quick else arguments.rounds
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    load = OtherLoad()
    report = {"machine": describe_machine(build, arguments.threads)}
    if arguments.only in (None, "quantize"):
        size = [64, 3] if arguments.quick else [256, 9]
        report["quantize"] = [json_lines([build / "bench/fake_quantize", *size]) for _ in range(rounds)]
    if arguments.only in (None, "quantizers"):
        report["quantizers"] = measure_quantizers(build, min(rounds, 3), arguments.quick)
    if arguments.only in (None, "loader"):
        report["loader"] = compare_loader.measure(build, 1 if arguments.quick else 3 * rounds, arguments.quick)
    if arguments.only in (None, "training"):
        report["training"] = measure_training(build, rounds, arguments.quick)
    report["machine"].update(versions_of(report))
    report["machine"].update(rounds=rounds, cpu_share_of_others=round(load.share(), 3))
    write(report, arguments.results)


if __name__ == "__main__":
    try:
        main()
    except ProgramError as error:
        sys.exit(f"compare.py: {error}")
