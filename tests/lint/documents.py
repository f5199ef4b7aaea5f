#!/usr/bin/env python3
"""Holds the documents to the tree: what they link to and name exists, and the manual names every option.

    documents.py [BUILD]      BUILD is not used; every program of this suite is given one

A name is a word between backticks, or in a fenced block, that has a path in this tree, ends like a source file, or is a function(). It may have globs, `[ch]`,
`{a,b}` and PLACEHOLDERS. What git ignores is made by a build, and may be named too. Comments of sources are held to the same where they name a file with its folder, or a
document. The checks are first tried on a small tree that breaks each rule; prints `N passed, N failed`.
"""

import fnmatch
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

LINK_RE = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE_RE = re.compile(r"^```[^\n]*\n(.*?)^```", re.M | re.S)
CODE_RE = re.compile(r"`([^`\n]+)`")
HEADING_RE = re.compile(r"^#+ (.*)$", re.M)
# Ends of the names of files that people write here; a word with one of these names a file even without its folder.
SOURCE_RE = re.compile(r"[\w*}\]-]\.(\[ch\]|c|h|py|md|sh|build|supp|8)$")
FUNCTION_RE = re.compile(r"([A-Za-z]\w*)\(\)")
OPTION_RE = re.compile(r'^\t\{"([a-z-]+)", (?:no|required)_argument', re.M)
OPTIONS, MANUAL = "core/base/options.c", "core/sluice.8"


class Tree:
    """The files of the project, relative to root."""

    def __init__(self, root, files):
        self.root, self.files = root, set(files)
        self.folders = {os.path.dirname(f) for f in files}
        for folder in list(self.folders):
            while folder:
                folder = os.path.dirname(folder)
                self.folders.add(folder)
        self.tops = {f.split("/")[0] for f in self.folders if f}

    def text(self, name):
        with open(os.path.join(self.root, name), encoding="utf-8", errors="replace") as f:
            return f.read()

    def has(self, path):
        """Whether path, possibly with globs, names something in the tree."""
        path = os.path.normpath(path)
        if path == ".":
            return True
        return any(fnmatch.fnmatchcase(name, path) for name in self.files | self.folders)

    def ignores(self, path):
        # As a file and as a folder: a rule may be for folders only.
        p = subprocess.run(["git", "-C", self.root, "check-ignore", "--no-index", path, path + "/"], capture_output=True)
        return p.returncode == 0


def expand(word):
    """Every name that a word stands for: `a.[ch]`, `{a,b}.c`."""
    word = word.replace("[ch]", "{c,h}")
    m = re.search(r"\{([^{}]*)\}", word)
    if not m:
        return [word]
    return [name for part in m[1].split(",") for name in expand(word[:m.start()] + part + word[m.end():])]


def exists(tree, document, word):
    """Whether a word of a document names something: from the root, from the document's folder or, without a folder, anywhere below that."""
    here = os.path.dirname(document)
    # .github speaks of the whole tree.
    below = "" if here.startswith(".") else here
    for name in expand(word):
        name = "/".join(part if tree.has(part) else re.sub(r"^[A-Z]{2,}(?=\.|$)", "*", part) for part in name.rstrip("/").split("/"))
        places = [name, os.path.join(here, name)]
        if "/" not in name:
            places.append(os.path.join(below, "*", name))
        elif name.split("/")[0] not in tree.tops:
            # "threads/x.c" below core/, and "x/y.c" where x is a folder of somebody else.
            places.append(os.path.join(below, "*", name))
        if not any(tree.has(place) or tree.ignores(place) for place in places):
            return False
    return True


def names_file(tree, document, word):
    if re.search(r"[:=$<>|]|^[-/.~]|\.\.\.|://", word):
        return False
    first = word.split("/")[0]
    if SOURCE_RE.search(word):
        return True
    return "/" in word and (first in tree.tops or os.path.join(os.path.dirname(document), first) in tree.folders)


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def check_links(tree):
    complaints = []
    for document in sorted(f for f in tree.files if f.endswith(".md")):
        for target in LINK_RE.findall(FENCE_RE.sub("", tree.text(document))):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            path = os.path.normpath(os.path.join(os.path.dirname(document), path)) if path else document
            if not tree.has(path):
                complaints.append(f"{document}: nothing at {target}")
            elif anchor and anchor not in map(slug, HEADING_RE.findall(tree.text(path))):
                complaints.append(f"{document}: no heading for {target}")
    return complaints


def check_names(tree):
    complaints = []
    sources = "\n".join(tree.text(f) for f in tree.files if f.endswith((".c", ".h")))
    for document in sorted(f for f in tree.files if f.endswith(".md")):
        text = tree.text(document)
        code = FENCE_RE.findall(text) + CODE_RE.findall(FENCE_RE.sub("", text))
        words = {w.strip("'\",;") for c in code for w in re.sub(r"(?<!\S)#.*", "", c).split()}
        complaints += [f"{document}: there is no {w}" for w in sorted({w.strip("()") for w in words}) if names_file(tree, document, w) and not exists(tree, document, w)]
        functions = {m[1] for m in map(FUNCTION_RE.fullmatch, words) if m}
        complaints += [f"{document}: there is no {f}()" for f in sorted(functions) if not re.search(rf"\b{f}\(", sources)]
    return complaints


def check_comments(tree):
    """Names of files in sources: with a folder of the tree before them, and documents."""
    tops = "|".join(sorted(map(re.escape, tree.tops)))
    name_re = re.compile(rf"(?<![\w./%{{-])((?:{tops})/[\w./*-]*[\w*]\.(?:c|h|py|md|sh|supp|8))\b(?!\.)|(?<![\w./*-])((?:[\w-]+/)+[\w-]+\.md|[A-Z]+\.md)\b")
    complaints = []
    for source in sorted(f for f in tree.files if f.endswith((".c", ".h", ".py", ".build", ".sh", ".8", ".yml"))):
        # The programs beside this one have samples of their own.
        if source.startswith("tests/lint/"):
            continue
        for name in {a or b for a, b in name_re.findall(tree.text(source))}:
            if not exists(tree, source, name):
                complaints.append(f"{source}: there is no {name}")
    return complaints


def check_manual(tree):
    options, manual = OPTION_RE.findall(tree.text(OPTIONS)), tree.text(MANUAL)
    if len(options) < 5:
        return [f"{OPTIONS}: only {len(options)} options found"]
    return [f"{MANUAL}: does not name the option --{o}" for o in options if f"Fl -{o}" not in manual]


CHECKS = [check_links, check_names, check_comments, check_manual]

# A tree with one fault for each line of FAULTS.
SAMPLE = {
    "README.md": "[gone](gone/README.md) [here](ring/README.md#rules) [no such](#heading) [out](https://example.org/x.md)\n"
                 "`ring/pool.[ch]` `ring/{pool,gone}.c` `ring/*.x` `ring/NAME.c` `old.c` `stage/*` `get()` `gone()`\n```sh\nring/run it   # gone/away.c\n```\n# Use\n",
    "ring/README.md": "# Rules\n`pool.c` `../README.md`\n",
    "ring/pool.c": "/* see ring/park.c, elsewhere/DESIGN.md and README.md */\n",
    "ring/pool.h": "int get(void);\n",
    OPTIONS: "".join(f'\t{{"o{c}", no_argument, NULL, 0}},\n' for c in "abcdef"),
    MANUAL: "".join(f".Fl -o{c}\n" for c in "abcde"),
}
FAULTS = {
    "README.md: nothing at gone/README.md", "README.md: no heading for #heading", "README.md: there is no ring/{pool,gone}.c", "README.md: there is no ring/*.x",
    "README.md: there is no old.c", "README.md: there is no gone()", "README.md: there is no ring/run", "ring/pool.c: there is no ring/park.c", "ring/pool.c: there is no elsewhere/DESIGN.md",
    f"{MANUAL}: does not name the option --of",
}


def check_sample(_tree):
    with tempfile.TemporaryDirectory(prefix="sluice-lint-") as root:
        for name, text in SAMPLE.items():
            os.makedirs(os.path.join(root, os.path.dirname(name)), exist_ok=True)
            with open(os.path.join(root, name), "w", encoding="utf-8") as f:
                f.write(text)
        found = {complaint for check in CHECKS for complaint in check(Tree(root, SAMPLE))}
    return [f"not found in the sample: {c}" for c in sorted(FAULTS - found)] + [f"wrongly found in the sample: {c}" for c in sorted(found - FAULTS)]


def main():
    p = subprocess.run(["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"], capture_output=True, text=True, check=True)
    tree = Tree(ROOT, [f for f in p.stdout.splitlines() if os.path.isfile(os.path.join(ROOT, f))])
    failed = 0
    for check in [check_sample, *CHECKS]:
        complaints = check(tree)
        failed += bool(complaints)
        for complaint in complaints:
            print(f"{check.__name__}: {complaint}")
    print(f"{1 + len(CHECKS) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
