#!/usr/bin/env python3
"""What documents and comments name must exist: files, headings, make targets, test and command names.

Reads every file git knows or would add. In Markdown it looks at links and at everything in backticks or code blocks; in
other text files at whatever starts like a path of this repository. Blocks of code in EXCERPTS must be parts of an
example, word for word, unless they are shell lines, which tests run. Also refuses paths and hosts that only exist where
somebody worked. Prints one line for each finding, and ends with 1 if there was any.

usage: scripts/check-docs.py [--self-test]
"""

import fnmatch
import os
import re
import subprocess
import sys
import tempfile

# Where a path of this repository starts. Named one by one, so that a folder which is gone is missed.
TOP = (
    "contract", "crates", "docs", "scripts", "e2e", "bench", "fuzz", "loom", "examples", "packaging", ".ci", ".config"
)
PATH = re.compile(r"(?<![\w./~{}$*-])(?:%s)/[\w./*@+-]*[\w*/]" % "|".join(map(re.escape, TOP)))
TOP_FILE = re.compile(r"(?:[A-Z][A-Z_-]+(?:\.md)?|Makefile|[a-z.-]+\.toml|LICENSE-[A-Z]+)")
MAKE = re.compile(r"(?:^ *|\$ |&& |sudo (?:-E )?(?:env \S+ )?)make((?: [a-z](?:[a-z0-9.-]*[a-z0-9])?)+)")
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^ {0,3}(```|~~~)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#* *$")
MACHINE = re.compile(r"(?<![\w.}/~-])/(?:work|workspace|builds?|root|Users|home/(?!USER|you|alice|bob)\w+)/[\w.]")
URL = re.compile(r"https?://([a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,})(?![\w.-])")
# Sites which documents may cite. Any other address is taken for somebody's own: a mirror, a registry, a test machine.
HOSTS = re.compile(
    r"(?:(?:.*\.)?example(?:\.com|\.net|\.org)?|.*\.(?:test|invalid|localhost)|github\.com|docs\.rs|rustup\.rs|"
    r"(?:(?:www|docs|lore|git)\.)?kernel\.org|man7\.org|learn\.microsoft\.com|(?:www\.)?rfc-editor\.org|"
    r"datatracker\.ietf\.org|keepachangelog\.com|semver\.org|spdx\.org|(?:www\.)?apache\.org|www\.w3\.org)"
)
EXCERPTS = ("docs/languages.md",)
EXAMPLES = ("examples/*", "crates/*/examples/*")
TEXT = (".rs", ".c", ".h", ".py", ".sh", ".toml", ".md", ".yml", ".go", ".java", ".js", ".cfg", ".conf")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    findings = check(Tree.of_git())
    for finding in findings:
        print(finding)
    print(f"check-docs: {len(findings)} findings" if findings else "check-docs: every name exists")
    return 1 if findings else 0


class Tree:
    """The files of the repository, and what they define."""

    def __init__(self, files):
        self.files = sorted(files)
        self.paths = set(self.files)
        for path in self.files:
            while path := os.path.dirname(path):
                self.paths.add(path)
        makefile = read("Makefile") if "Makefile" in self.paths else ""
        self.targets = set(re.findall(r"^([a-z][a-z0-9.-]*):", makefile, re.M))

    @classmethod
    def of_git(cls):
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True, capture_output=True
        ).stdout.decode()
        return cls(path for path in listed.split("\0") if path and os.path.isfile(path))

    def has(self, path):
        path = os.path.normpath(path)
        return path in self.paths or ("*" in path and bool(fnmatch.filter(self.paths, path)))


def check(tree):
    findings = []
    for file in tree.files:
        if os.path.islink(file) or file in ("Cargo.lock", "scripts/check-docs.py"):
            continue
        if not (file.endswith(TEXT) or os.path.basename(file) in ("Makefile", "run")):
            continue
        lines = read(file).splitlines()
        look = look_at_markdown if file.endswith(".md") else look_at_text
        excerpts = look_at_excerpts(tree, lines) if file in EXCERPTS else []
        for number, what in [*look(tree, file, lines), *look_for_foreign_places(lines), *excerpts]:
            findings.append(f"{file}:{number}: {what}")
    return findings


def look_at_markdown(tree, file, lines):
    fenced = False
    for number, line in enumerate(lines, 1):
        if FENCE.match(line):
            fenced = not fenced
        elif fenced:
            yield from missing_names(tree, file, number, line)
        else:
            for code in re.findall(r"`([^`]+)`", line):
                yield from missing_names(tree, file, number, code)
                if TOP_FILE.fullmatch(code) and "." in code and not beside(tree, file, code):
                    yield number, f"{code} does not exist"
            for target in LINK.findall(re.sub(r"`[^`]+`", "", line)):
                yield from broken_link(tree, file, number, target)


def look_at_excerpts(tree, lines):
    examples = [path for path in tree.files if any(fnmatch.fnmatch(path, pattern) for pattern in EXAMPLES)]
    texts = ["\n" + read(path) for path in examples]
    start = None
    for number, line in enumerate(lines, 1):
        if not FENCE.match(line):
            continue
        if start is None:
            start = number
            continue
        block = "\n" + "".join(line + "\n" for line in lines[start : number - 1])
        if lines[start - 1] != "```sh" and not any(block in text for text in texts):
            yield start, "these lines are in no example"
        start = None


def look_at_text(tree, file, lines):
    for number, line in enumerate(lines, 1):
        for path in PATH.findall(line):
            if not beside(tree, file, path):
                yield number, f"{path} does not exist"


def look_for_foreign_places(lines):
    for number, line in enumerate(lines, 1):
        if MACHINE.search(line):
            yield number, f"a path of one machine: {line.strip()[:80]}"
        for host in URL.findall(line):
            if not HOSTS.fullmatch(host):
                yield number, f"{host} is not among the sites that may be cited (HOSTS in scripts/check-docs.py)"


def missing_names(tree, file, number, code):
    for path in PATH.findall(code):
        if not beside(tree, file, path):
            yield number, f"{path} does not exist"
    for targets in MAKE.findall(code):
        for target in targets.split():
            if target not in tree.targets:
                yield number, f"make {target}: no such target"


def broken_link(tree, file, number, target):
    if re.match(r"[a-z]+:", target):
        return
    path, _, anchor = target.partition("#")
    path = os.path.normpath(os.path.join(os.path.dirname(file), path)) if path else file
    if not tree.has(path):
        yield number, f"link to {target}: no such file"
    elif anchor and path.endswith(".md") and anchor not in anchors(read(path)):
        yield number, f"link to {target}: no such heading"


# A path is from the top, or from the crate or folder the file is in.
def beside(tree, file, path):
    folder = file
    while folder:
        folder = os.path.dirname(folder)
        if tree.has(os.path.join(folder, path)):
            return True
    return False


def anchors(markdown):
    found, fenced = set(), False
    for line in markdown.splitlines():
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced and (match := HEADING.match(line)):
            slug = re.sub(r"[^\w\- ]", "", match[1].lower()).replace(" ", "-")
            count = 0
            while (slug if not count else f"{slug}-{count}") in found:
                count += 1
            found.add(slug if not count else f"{slug}-{count}")
    return found


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def self_test():
    """A small repository with one of each mistake, and one of each thing that is none."""
    good = {
        "Makefile": "test-unit: ## x\ntest-kernel-6.1: ## y\n",
        "docs/a.md": "# One `thing`\n## Two\n## Two\n",
        "crates/x/src/lib.rs": "// see docs/a.md, src/lib.rs and /proc/self/mounts, ../docs/none.md is not ours\n",
        "examples/c/x.c": "\tx();\n\ty();\n\tz();\n",
        "README.md": "[a](docs/a.md#two-1) [b](https://example.org/x) "
        "`crates/x` `crates/*/src` `make test-unit` `x.md`\n"
        "```sh\nmake test-unit\nmake test-kernel-6.1\nls target/docs/none /home/alice/x\n```\n",
    }
    bad = {
        "docs/b.md": "[a](a.md#three)\n[b](none.md)\n`docs/none.md`\n`make none`\n```\nscripts/none.sh\n```\n"
        "`README2.md`\n`NONE.md`\n",
        "docs/languages.md": "```c\n\tx();\n\ty();\n```\n```sh\ncc x.c\n```\n```c\n\tx();\n\tz();\n```\n",
        "crates/x/src/y.rs": "// docs/none.md\n// /work/x\n"
        "// https://mirror.corp.io/x http://a.example/ http://127.0.0.1:1/\n",
    }
    expected = [
        "crates/x/src/y.rs:1: docs/none.md does not exist",
        "crates/x/src/y.rs:2: a path of one machine: // /work/x",
        "crates/x/src/y.rs:3: mirror.corp.io is not among the sites that may be cited "
        "(HOSTS in scripts/check-docs.py)",
        "docs/b.md:1: link to a.md#three: no such heading",
        "docs/b.md:2: link to none.md: no such file",
        "docs/b.md:3: docs/none.md does not exist",
        "docs/b.md:4: make none: no such target",
        "docs/b.md:6: scripts/none.sh does not exist",
        "docs/b.md:9: NONE.md does not exist",
        "docs/languages.md:8: these lines are in no example",
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for path, text in {**good, **bad}.items():
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        found = check(Tree([*good, *bad]))
        os.chdir("/")
    if found != expected:
        print("check-docs: self-test failed\nexpected:", *expected, "found:", *found, sep="\n  ")
        return 1
    print("check-docs: self-test passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
