"""How a test is declared: @case() on a function of one or two Programs, found by tests/netns/run."""

import inspect
import os
import shutil

from lib import Program, ROOT

SLUICE = Program("sluice", os.path.abspath(os.environ.get("SLUICE_BIN") or os.path.join(ROOT, "build", "sluice")))
# A stand-in (SLUICE_BIN=/usr/bin/wireguard-go) runs the part of the suite that any implementation must pass.
if not SLUICE.is_sluice:
    SLUICE.name = "other"
GO = Program("go", shutil.which("wireguard-go") or "/usr/bin/wireguard-go")

SELF = ((SLUICE, SLUICE),)
BOTH_ROLES = ((SLUICE, SLUICE), (SLUICE, GO), (GO, SLUICE))

all_cases = []


class Case:
    def __init__(self, function, programs, timeout, ours, slow, waits, full_only):
        self.name = function.__name__
        if len(programs) == 2 or programs[0] is not SLUICE:
            self.name += "[" + "-".join(p.name for p in programs) + "]"
        self.function, self.programs, self.timeout, self.ours = function, programs, timeout, ours
        self.slow, self.waits, self.full_only = slow, waits, full_only

    def reason_to_skip(self):
        if self.ours and not SLUICE.is_sluice:
            return "tests what only sluice does"
        for p in self.programs:
            if not os.access(p.path, os.X_OK):
                return f"{p.path} is not there"
        return None


def case(pairs=None, timeout=40, ours=False, slow=False, waits=False, params=((),)):
    """Declares a test. The function's arguments are the programs of a pair (or sluice alone), then those of one tuple of params.

    ours: about something that other implementations do not do. slow: left out of --quick. waits: mostly idle, for
    minutes; runs beside the others. --quick also leaves out pairs with another implementation.
    """

    def declare(function):
        for programs in pairs or ((SLUICE,),):
            for p in params:
                c = Case(function, programs, timeout, ours, slow or waits, waits, any(x is GO for x in programs))
                c.extra = p
                if p:
                    c.name += "[" + ",".join(str(x) for x in p) + "]"
                all_cases.append(c)
        return function

    return declare
