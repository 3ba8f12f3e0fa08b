"""Tries one thing, says `escaped` if it was done, or the errno of why not, and exits accordingly."""

import ctypes
import fcntl
import mmap
import os
import platform
import select
import signal
import socket
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
# On x86_64 and on aarch64.
CALLS = {
    "ptrace": (101, 117), "unshare": (272, 97), "clone": (56, 220), "clone3": (435, 435), "add_key": (248, 217),
    "keyctl": (250, 219), "bpf": (321, 280), "userfaultfd": (323, 282), "perf": (298, 241), "io_uring": (425, 425),
    "open_tree": (428, 428), "process_vm_readv": (310, 270), "clock": (227, 112), "syslog": (103, 116),
}


def call(name, *arguments):
    whole = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    done = libc.syscall(ctypes.c_long(CALLS[name][ARM]), *whole)
    if done < 0:
        raise OSError(ctypes.get_errno(), name)
    return done


def child():
    """A process that waits to be ended."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid


def end(pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def forks(count):
    pids = []
    try:
        for _ in range(count):
            pids.append(child())
    finally:
        end(pids)


def threads(count):
    stop = threading.Event()
    threading.stack_size(65536)
    try:
        for _ in range(count):
            threading.Thread(target=stop.wait).start()
    except RuntimeError as error:
        raise OSError(11, str(error))
    finally:
        stop.set()


def fill(folder, megabytes):
    path = os.path.join(folder, f"superserve-try-{os.getpid()}")
    try:
        with open(path, "wb") as file:
            for _ in range(megabytes):
                file.write(b"x" * 1_000_000)
    finally:
        os.unlink(path)


def files(folder, count):
    path = os.path.join(folder, f"superserve-try-{os.getpid()}")
    os.mkdir(path)
    try:
        for number in range(count):
            open(os.path.join(path, str(number)), "x").close()
    finally:
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))
        os.rmdir(path)


def memory(megabytes):
    try:
        held = [b"x" * 1_000_000 for _ in range(megabytes)]
        assert len(held) == megabytes
    except MemoryError:
        raise OSError(12, "memory")


def shared(megabytes):
    """Memory that no limit on one process's own counts. Done by a child, which the kernel may end."""
    pid = os.fork()
    if pid == 0:
        held = mmap.mmap(-1, megabytes * 1_000_000)
        for at in range(0, len(held), 4096):
            held[at] = 1
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError(12, "memory")


def spread(count, megabytes):
    """Memory of several processes, none of which takes much."""
    ready, tell = os.pipe()
    pids = []
    try:
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                held = b"x" * (megabytes * 1_000_000)
                os.write(tell, held[:1])
                signal.pause()
                os._exit(len(held))
            pids.append(pid)
        there = 0
        while there < count:
            if any(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) for pid in pids):
                raise OSError(12, "memory")
            if select.select([ready], [], [], 0.02)[0]:
                there += len(os.read(ready, count))
    finally:
        end(pids)


def everything():
    """Takes all processes and all of /tmp, says so, and goes on taking."""
    told = False
    full = os.open("/tmp/full", os.O_WRONLY | os.O_CREAT)
    while True:
        for take in [child, lambda: os.write(full, b"x" * 100_000)]:
            try:
                while True:
                    take()
            except OSError:
                pass
        if not told:
            print("full", flush=True)
            told = True
        time.sleep(0.05)


def tiocsti():
    master, slave = os.openpty()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        try:
            fcntl.ioctl(slave, 0x540E, 0)
            fcntl.ioctl(slave, 0x5412, b"x")
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, "tiocsti")


def ptrace():
    pid = child()
    try:
        call("ptrace", 0x4206, pid, 0, 0)
    finally:
        end([pid])


def process_vm_readv():
    pid = child()
    buffer = ctypes.create_string_buffer(b"secret")
    local, remote = ctypes.create_string_buffer(6), ctypes.addressof(buffer)
    vector = lambda at: (ctypes.c_size_t * 2)(at, 6)
    try:
        call("process_vm_readv", pid, vector(ctypes.addressof(local)), 1, vector(remote), 1, 0)
    finally:
        end([pid])


def clone_newuser():
    pid = call("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def clock():
    now = (ctypes.c_long * 2)()
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    now[0], now[1] = seconds, nanos
    call("clock", 0, now)


def tcp(address, port):
    socket.create_connection((address, int(port)), timeout=5).close()


def udp(address, port):
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.settimeout(5)
    asking.connect((address, int(port)))
    asking.send(b"question")
    assert asking.recv(100) == b"question"


def abstract(name):
    socket.socket(socket.AF_UNIX).connect("\0" + name)


def opens(count):
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    assert len(held) == count


TRIES = {
    "abstract": abstract,
    "add_key": lambda: call("add_key", b"user", b"superserve-escape", b"x", 1, -2),
    "bpf": lambda: call("bpf", 0, (ctypes.c_uint * 32)(2, 4, 4, 1), 128),
    "clock": clock,
    "clone3": lambda: call("clone3", 0, 0),
    "clone_newuser": clone_newuser,
    "everything": everything,
    "files": lambda folder, count: files(folder, int(count)),
    "fill": lambda folder, megabytes: fill(folder, int(megabytes)),
    "forks": lambda count: forks(int(count)),
    "io_uring": lambda: call("io_uring", 1, (ctypes.c_ubyte * 120)()),
    "memory": lambda megabytes: memory(int(megabytes)),
    "name": lambda name: socket.getaddrinfo(name, 80),
    "open_tree": lambda: call("open_tree", -100, b"/", 0),
    "opens": lambda count: opens(int(count)),
    "perf": lambda: call("perf", (ctypes.c_ulong * 16)(0x80 << 32 | 1), 0, -1, -1, 0),
    "personal_keyring": lambda: call("keyctl", 1, 0),
    "process_vm_readv": process_vm_readv,
    "ptrace": ptrace,
    "shared": lambda megabytes: shared(int(megabytes)),
    "spread": lambda count, megabytes: spread(int(count), int(megabytes)),
    "syslog": lambda: call("syslog", 10, 0, 0),
    "tcp": tcp,
    "threads": lambda count: threads(int(count)),
    "tiocsti": tiocsti,
    "udp": udp,
    "userfaultfd": lambda: call("userfaultfd", 1),
}

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    TRIES[sys.argv[1]](*sys.argv[2:])
except OSError as error:
    print(f"errno {error.errno}", flush=True)
    sys.exit(1)
print("escaped", flush=True)
