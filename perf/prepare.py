"""What the commands of perf/ do between their arguments and their work: install what is missing, and build the program. The commands call it once
their arguments are known to be good, so nothing is installed for a command line that is refused."""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Unprepared(SystemExit):
    """Ends the command; what is wrong has been said."""


def setup(function, *args, env=None):
    """Runs a function of tests/lib/setup.sh, with its output as it comes. Returns whether it succeeded."""
    argv = ["bash", "-c", f'. tests/lib/setup.sh && {function} "$@"', "bash", *args]
    try:
        return not subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}).returncode
    except KeyboardInterrupt:
        raise Unprepared(130)


def need(*groups):
    """Packages by the groups of tests/lib/setup.sh."""
    if not setup("setup_need", *groups):
        raise Unprepared(1)


def root(command):
    if os.geteuid() != 0:
        print(f"{command}: run it as root (sudo {command}): it makes network namespaces and TUN interfaces", file=sys.stderr)
        raise Unprepared(1)


def build(directory, *options, env=None):
    """Builds sluice in a directory of the tree; the options are for its first time."""
    if not os.path.exists(os.path.join(ROOT, directory, "build.ninja")):
        print(f"building sluice in {directory}", file=sys.stderr)
    if not setup("setup_build", directory, "-Dbuildtype=release", "-Dtests=disabled", *options, env=env):
        raise Unprepared(1)


def program(command):
    """For what runs sluice in namespaces of its own: root, the packages, and a release build unless SLUICE_BIN names a program."""
    root(command)
    need("build", "netns")
    if not os.environ.get("SLUICE_BIN"):
        build("build-perf")
        os.environ["SLUICE_BIN"] = os.path.join(ROOT, "build-perf", "sluice")
