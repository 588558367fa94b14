"""What a running program asks of the kernel, counted by strace: system calls, and the batches that it sends
to nf_tables with their sizes."""

import collections
import os
import re
import signal
import subprocess
import time

# A call that another thread's line interrupts stands in two: its arguments in the first.
#     1234  sendto(9, [[{nlmsg_len=20, nlmsg_type=NFNL_MSG_BATCH_BEGIN, ...) = 5120
#     1234  sendto(9, [[{nlmsg_len=20, nlmsg_type=NFNL_MSG_BATCH_BEGIN, ... <unfinished ...>
#     1234  <... sendto resumed>) = 5120
CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*) = (-?\d+|\?)")
UNFINISHED = re.compile(r"^(\d+) +\w+\((.*) <unfinished \.\.\.>$")
BATCH = "nlmsg_type=NFNL_MSG_BATCH_BEGIN"
ATTACH_LIMIT = 10  # seconds


class Attached:
    """Every system call of a process, while the block lasts; they are in `calls` and `batches` afterwards."""

    def __init__(self, pid, path):
        self.pid, self.path = pid, path
        self.calls, self.batches = collections.Counter(), []
        self.begun = {}
        command = ["strace", "-o", path, "-f", "-s", "16", "-e", "signal=none", "-p", str(pid)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        deadline = time.monotonic() + ATTACH_LIMIT
        while not all(self.is_traced(task) for task in os.listdir(f"/proc/{self.pid}/task")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise OSError(f"strace cannot attach: {self.process.stderr.read().strip()}")
            time.sleep(0.01)
        return self

    def is_traced(self, task):
        with open(f"/proc/{self.pid}/task/{task}/status", encoding="ascii") as file:
            return "TracerPid:\t0\n" not in file.read()

    def __exit__(self, kind, value, traceback):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=ATTACH_LIMIT)
        with open(self.path, encoding="utf-8", errors="replace") as file:
            for line in file:
                self.take(line)

    def take(self, line):
        if match := UNFINISHED.match(line):
            thread, arguments = match.groups()
            self.begun[thread] = arguments
        elif match := CALL.match(line):
            thread, name, arguments, result = match.groups()
            self.calls[name] += 1
            if BATCH in self.begun.pop(thread, "") + arguments:
                self.batches.append(int(result))
