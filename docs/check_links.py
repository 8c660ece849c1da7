#!/usr/bin/env python3
"""Checks that every relative link of README.md and docs/ points to a file or folder that exists.

Prints each broken link as FILE:LINE: TARGET and exits with status 1 if there is one. Links to web pages and
to headings of the same page are left out, and so is everything in code blocks and code spans.
"""

import re
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(<?((?:[^()<>\s]|\([^()\s]*\))+)>?(?:\s+\"[^\"]*\")?\)")  # [text](target), ![text](target)
DEFINITION = re.compile(r"^\s{0,3}\[[^\]]+\]:\s*<?([^<>\s]+)>?")  # [name]: target
HTML = re.compile(r"(?:src|href|srcset)=\"([^\"]+)\"")
FENCE = re.compile(r"^\s*(```+|~~~+)")
CODE = re.compile(r"(`+).*?\1")
SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*:")


def targets(page):
    """Pairs of line number and link target."""
    fence = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        mark = FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence:
            text = CODE.sub("", line)
            for pattern in (LINK, DEFINITION, HTML):
                for match in pattern.finditer(text):
                    yield number, match[1]


def is_broken(page, target):
    if SCHEME.match(target) or target.startswith(("#", "//")):
        return False
    path = unquote(target.split("#")[0].split("?")[0])
    start = ROOT / path.lstrip("/") if path.startswith("/") else page.parent / path
    return not start.exists()


def main():
    readme = ROOT / "README.md"
    pages = [readme, *sorted((ROOT / "docs").rglob("*.md"))]
    broken = [] if readme.exists() else ["README.md is missing"]
    links = 0
    for page in filter(Path.exists, pages):
        for number, target in targets(page):
            links += 1
            if is_broken(page, target):
                broken.append(f"{page.relative_to(ROOT)}:{number}: {target}")
    for line in broken:
        print(line, file=sys.stderr)
    print(f"{len(pages)} pages, {links} links, {len(broken)} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
