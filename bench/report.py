"""What the measuring scripts share: running programs that print JSON lines, spreads over rounds, goals, report files."""

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


class ProgramError(Exception):
    """A measuring program that failed, in one line."""


def json_lines(command, environment=None, timeout=None):
    """Every JSON line that a program prints; ProgramError where it fails or takes longer than `timeout` seconds."""
    command = [str(part) for part in command]
    name = pathlib.Path(command[1 if "python" in pathlib.Path(command[0]).name else 0]).name
    try:
        done = subprocess.run(command, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired as expired:
        raise ProgramError(f"{name} took longer than {timeout:.0f} s") from expired
    except OSError as error:
        raise ProgramError(f"{name}: {error.strerror}") from error
    sys.stderr.write(done.stderr)
    if done.returncode != 0:
        last_words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ProgramError(f"{name} ended with status {done.returncode}: {last_words}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise ProgramError(f"{name} printed no result")
    return lines


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


GOAL_HEADER = ["| ratio | median | spread | goal | reached |", "|---|---|---|---|---|"]


def verdict(s, goal, more):
    if goal is None:
        return ""
    if (s["median"] >= goal) if more else (s["median"] <= goal):
        return "yes"
    return "within the noise" if s["min"] <= goal <= s["max"] else "no"


def goal_row(name, s, goal, more):
    """A row of the table under GOAL_HEADER; `more`: whether more is better; without a spread nothing was measured."""
    bound = "" if goal is None else f"{'at least' if more else 'at most'} {goal:.2f}"
    if s is None:
        return f"| {name} | | | {bound} | not measured |"
    return (f"| {name} | {s['median']:.3f} | {s['min']:.3f} to {s['max']:.3f} | {bound} | "
            f"{verdict(s, goal, more)} |")


def machine_table(machine):
    return ["| | |", "|---|---|", *(f"| {key.replace('_', ' ')} | {value} |" for key, value in machine.items())]


def slug_of(name):
    """A processor's or GPU's name as part of a file's name."""
    short = re.sub(r"\(r\)|\(tm\)|\bcpu\b|\bprocessor\b|@.*", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", short.lower()).strip("-")


def commit_of_sources():
    return subprocess.run(["git", "-C", str(HERE), "describe", "--always", "--dirty"], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()


def write_report(report, lines, folder, name, shown=None):
    """Writes the lines and the raw figures to FOLDER/NAME.md and .json; prints the lines, or those `shown`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(shown or lines))
    print(f"written: {folder / name}.md, {name}.json", file=sys.stderr)
