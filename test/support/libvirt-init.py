"""Runs the libvirtd of a test, as often as it is told to on standard input, and ends with it. Orphans come to it and are
reaped at once: libvirtd waits for the end of machines that it did not begin itself, half a minute where nobody does.
Arguments: the program of libvirtd and its arguments."""
import ctypes
import os
import resource
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
daemon = 0


def reap(*_):
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == daemon:
            os.write(1, b"stopped\n")


def start():
    pid = os.fork()
    if pid != 0:
        return pid
    # A process that begins another one closes every number that a file could have: with Node's limit that takes long.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    os.execvp(sys.argv[1], sys.argv[1:])


def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


signal.signal(signal.SIGCHLD, reap)
for line in sys.stdin:
    if line == "start\n":
        daemon = start()
    else:
        os.kill(daemon, signal.SIGTERM)
for child in children():
    os.kill(child, signal.SIGKILL)
