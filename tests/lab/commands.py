"""Running the commands of perf/ and looking for what they leave behind."""

import atexit
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

SVG = "{http://www.w3.org/2000/svg}"


@functools.cache
def binary():
    """A copy of the sluice that is measured, so that a build meanwhile changes nothing: of SLUICE_BIN, or of what is built here."""
    path = os.environ.get("SLUICE_BIN")
    if not path:
        path = os.path.join(ROOT, "build-perf", "sluice")
        subprocess.run(["bash", "-c", ". tests/lib/setup.sh && setup_build build-perf -Dbuildtype=release -Dtests=disabled"], cwd=ROOT, check=True)
    directory = tempfile.TemporaryDirectory(prefix="sluice-lab-bin-")
    process = os.getpid()  # the children that tests fork are not the ones to remove it
    atexit.register(lambda: directory.cleanup() if os.getpid() == process else None)
    return shutil.copy(path, os.path.join(directory.name, "sluice"))


def needs_root():
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root")
    if subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode:
        raise unittest.SkipTest("needs namespaces")
    if not os.path.exists("/dev/net/tun"):
        raise unittest.SkipTest("needs /dev/net/tun")


class Command(unittest.TestCase):
    """A test with a directory of its own in which the command runs to its end, or until it is interrupted."""

    env = {}

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="sluice-lab-")
        self.addCleanup(shutil.rmtree, self.directory)
        # So that what a command forgets in its temporary directory can be seen, and is seen by nobody else.
        self.scratch = self.path("tmp")
        os.mkdir(self.scratch)

    def path(self, name):
        return os.path.join(self.directory, name)

    def start(self, *argv, env=None, prefix=()):
        return subprocess.Popen([*prefix, os.path.join(ROOT, argv[0]), *map(str, argv[1:])], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "TMPDIR": self.scratch, "LAB_TEST": self.directory,
                                                                                **self.env, **(env or {})}, start_new_session=True)

    def run_command(self, *argv, status=0, env=None, prefix=(), timeout=300):
        p = self.start(*argv, env=env, prefix=prefix)
        try:
            out, err = p.communicate(timeout=timeout)
        finally:
            if p.returncode is None:
                os.killpg(p.pid, signal.SIGKILL)
                p.communicate()
        self.assertEqual(p.returncode, status, f"{argv}\n{out}\n{err}")
        return out, err

    def interrupt(self, *argv, when, signum=signal.SIGINT, timeout=120, env=None):
        """Starts a command, waits until it has printed a word, interrupts it, and returns (status, output)."""
        p = self.start(*argv, env=env)
        out = ""
        try:
            end = time.monotonic() + timeout
            while when not in out:
                self.assertLess(time.monotonic(), end, f"{when!r} not seen: {out}")
                part = os.read(p.stdout.fileno(), 65536).decode(errors="replace")
                self.assertTrue(part, f"it ended: {out}{p.stderr.read() if not part else ''}")
                out += part
            time.sleep(0.7)
            # What a terminal does on Ctrl-C: to all of the group.
            os.killpg(p.pid, signum)
            rest, err = p.communicate(timeout=20)
        finally:
            if p.returncode is None:
                os.killpg(p.pid, signal.SIGKILL)
                p.communicate()
        return p.returncode, out + rest + err

    def assert_nothing_left(self):
        """No process that this test's command has started (they carry a word in their environment), and no temporary file."""
        mark = f"LAB_TEST={self.directory}".encode()

        def left():
            found = []
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open(f"/proc/{pid}/environ", "rb") as f:
                        if mark in f.read().split(b"\0"):
                            with open(f"/proc/{pid}/cmdline", "rb") as c:
                                found.append((pid, c.read().replace(b"\0", b" ").decode()))
                except OSError:
                    pass
            return found

        end = time.monotonic() + 3
        while left() and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(left(), [])
        self.assertEqual(os.listdir(self.scratch), [])
