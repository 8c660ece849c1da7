"""The part of compare.py about the loader: images/s on one core beside Pillow with torchvision and beside libjpeg alone."""

import os
import sys

from report import GOAL_HEADER, HERE, goal_row, json_lines, spread

# name, number of files, arguments of make_photographs. The second has the mean size and length of ImageNet's files.
PHOTOGRAPHS = [("500x375", 400, [500, 375]), ("400x350", 400, [400, 350, "--detail", 3])]
SIZE, BATCH = 224, 64

CONTENDERS = {
    "decode": "libjpeg alone, the same crops",
    "train": "qtrain, random resized crop, flip",
    "torchvision_train": "Pillow and torchvision, random resized crop, flip, to tensor, normalize",
    "eval": "qtrain, resize, centre crop",
    "torchvision_eval": "Pillow and torchvision, resize, centre crop, to tensor, normalize",
    "one_worker": "qtrain, random resized crop, flip; one worker, any core",
    "two_workers": "the same with two workers",
}

# Processor time where a single thread works, so that other programs on its core don't count.
def speed_of(contender, run):
    return run["images_per_second" if contender.endswith(("worker", "workers")) else "images_per_cpu_second"]


# label, above, below, goal
RATIOS = [
    ("training pipeline over torchvision's", "train", "torchvision_train", 2.4),
    ("training pipeline over libjpeg alone", "train", "decode", 0.85),
    ("evaluation pipeline over torchvision's", "eval", "torchvision_eval", 2.5),
    ("two workers over one", "two_workers", "one_worker", 1.85),
]


def command_of(contender, build, folder, epochs):
    # One core for all threads: a worker decodes, and whoever waits for its batches does nothing.
    pinned = ["taskset", "-c", max(os.sched_getaffinity(0))]
    if contender.startswith("torchvision_"):
        return [*pinned, "/usr/bin/python3", HERE / "peer_loader.py", folder, contender.removeprefix("torchvision_"),
                SIZE, epochs]
    loader = [build / "bench/loader", folder, SIZE, BATCH, epochs]
    if contender in ("one_worker", "two_workers"):
        return [*loader, "--pipeline", "train", "--workers", 1 if contender == "one_worker" else 2]
    return [*pinned, *loader, "--pipeline", contender, "--workers", 1]


def measure(build, rounds, quick):
    results = []
    for name, count, arguments in PHOTOGRAPHS:
        folder = build / f"photographs-{name}"
        files = json_lines([build / "bench/make_photographs", folder, count, *arguments])[-1]
        runs = {contender: [] for contender in CONTENDERS}
        for number in range(rounds):
            print(f"loader, photographs of {name}, round {number + 1} of {rounds}", file=sys.stderr)
            for contender, done in runs.items():
                epochs = 1 if quick or contender.startswith("torchvision_") else 2
                done.append(json_lines(command_of(contender, build, folder, epochs))[-1])
        ratios = {f"{above}_over_{below}": spread([speed_of(above, a) / speed_of(below, b)
                                                   for a, b in zip(runs[above], runs[below])])
                  for _, above, below, _ in RATIOS}
        ratios["processor_time_of_two"] = spread([a["images_per_cpu_second"] / b["images_per_cpu_second"] for a, b
                                                  in zip(runs["one_worker"], runs["two_workers"])])
        results.append({"photographs": name, "files": files, "runs": runs, "ratios": ratios})
    return results


def versions(results):
    run = results[0]["runs"]["torchvision_train"][0]
    return {key: run[key] for key in ("pillow", "torchvision", "libjpeg_turbo")}


def tables(results):
    lines = ["## Loader", "", f"To {SIZE}x{SIZE}, files in the page cache, medians of the rounds, [smallest, largest]. "
             "All on one core and by processor time, but for the last two rows.", ""]
    for result in results:
        lines += [f"### Photographs around {result['photographs']}, {result['files']['mean_kb']:.1f} KB on average", "",
                  "| | images/s | ms an image |", "|---|---|---|"]
        for contender, label in CONTENDERS.items():
            speed = spread([speed_of(contender, run) for run in result["runs"][contender]])
            lines.append(f"| {label} | {speed['median']:.0f} [{speed['min']:.0f}, {speed['max']:.0f}] | "
                         f"{1000 / speed['median']:.3f} |")
        lines += ["", *GOAL_HEADER]
        lines += [goal_row(label, result["ratios"][f"{above}_over_{below}"], goal, True)
                  for label, above, below, goal in RATIOS]
        lines += [goal_row("processor time an image, two workers over one", result["ratios"]["processor_time_of_two"],
                           None, False), ""]
    return lines
