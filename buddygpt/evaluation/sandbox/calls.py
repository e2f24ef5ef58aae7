"""The system calls that a contained program may make, as a filter for the kernel (seccomp, classic BPF).

A list of what is allowed, not of what is forbidden: no sockets, no new processes, no other program, no signals to
others, nothing that changes owners, rights or mounts, no memory outside the address space, which is limited. All that
came to Linux after 5.0 is answered "not there", so that the C library takes the older way.

Numbers from the kernel's asm/unistd_64.h (x86-64) and asm-generic/unistd.h (arm64); layout of the data that a filter
sees from linux/seccomp.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_NEWER = 424
"""From here on all architectures number alike, and nothing is needed."""
_CLONE_THREAD = 0x10000
_EPERM, _ENOSYS = 1, 38

_PLAIN = """
read 0 63 | write 1 64 | readv 19 65 | writev 20 66 | pread64 17 67 | pwrite64 18 68 | open 2 - | openat 257 56
close 3 57 | stat 4 - | fstat 5 80 | lstat 6 - | newfstatat 262 79 | statx 332 291 | access 21 - | faccessat 269 48
lseek 8 62 | getdents64 217 61 | getcwd 79 17 | chdir 80 49 | readlink 89 - | readlinkat 267 78 | mkdir 83 -
mkdirat 258 34 | rmdir 84 - | unlink 87 - | unlinkat 263 35 | rename 82 - | renameat 264 38 | renameat2 316 276
link 86 - | linkat 265 37 | symlink 88 - | symlinkat 266 36 | ftruncate 77 46 | fsync 74 82 | fdatasync 75 83
umask 95 166 | mmap 9 222 | mprotect 10 226 | munmap 11 215 | mremap 25 216 | madvise 28 233 | brk 12 214
rt_sigaction 13 134 | rt_sigprocmask 14 135 | rt_sigreturn 15 139 | rt_sigpending 127 136 | rt_sigtimedwait 128 137
sigaltstack 131 132 | restart_syscall 219 128 | pause 34 - | alarm 37 - | getitimer 36 102 | setitimer 38 103
nanosleep 35 101 | clock_nanosleep 230 115 | clock_gettime 228 113 | clock_getres 229 114 | gettimeofday 96 169
time 201 - | times 100 153 | futex 202 98 | set_robust_list 273 99 | rseq 334 293 | gettid 186 178
sched_yield 24 124 | sched_getaffinity 204 123 | getpid 39 172 | getppid 110 173 | getuid 102 174 | geteuid 107 175
getgid 104 176 | getegid 108 177 | getrusage 98 165 | getrlimit 97 163 | uname 63 160 | sysinfo 99 179 | getcpu 309 168
dup 32 23 | dup2 33 - | dup3 292 24 | pipe 22 - | pipe2 293 59 | select 23 - | pselect6 270 72 | poll 7 - | ppoll 271 73
epoll_create1 291 20 | epoll_ctl 233 21 | epoll_wait 232 - | epoll_pwait 281 22 | getrandom 318 278 | exit 60 93
exit_group 231 94
"""
_CHECKED = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "clone": (56, 220),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "prlimit64": (302, 261),
}
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030)
"""Copy, flags, locks. Not the owner of a file: its signals would go to other processes."""
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)
"""Is it a terminal, its size, bytes waiting, and the flag for exec."""


def filter_for(machine: str, pid: int) -> bytes:
    """Instructions for a process; what is not allowed fails with "not permitted".

    Args:
        machine: as `platform.machine()` says.
        pid: the process's own number, which alone it may send signals to.

    Raises:
        LookupError: the machine's numbers are not known here.
    """
    if machine not in _ARCHITECTURES:
        raise LookupError(f"no list of system calls for {machine}; there is one for {' and '.join(_ARCHITECTURES)}")
    architecture, column = _ARCHITECTURES[machine]
    numbers = {name: columns[column] for name, columns in _CHECKED.items()}
    code = [_load(4), *_unless(architecture, _answer(kill=True)), _load(0), _op(0x35, _NEWER, 0, 1), _answer(_ENOSYS)]
    for entry in _PLAIN.replace("\n", " | ").split(" | "):
        number = entry.split()[1:][column] if entry.strip() else "-"
        if number != "-":
            code += [_op(0x15, int(number), 0, 1), _answer()]
    code += _only(numbers["kill"], 0, [pid]) + _only(numbers["tgkill"], 0, [pid]) + _only(numbers["prlimit64"], 0, [0])
    code += _only(numbers["fcntl"], 1, _FCNTL) + _only(numbers["ioctl"], 1, _IOCTL)
    thread = [_load(16), _op(0x45, _CLONE_THREAD, 0, 1), _answer(), _answer(_EPERM)]
    code += [_op(0x15, numbers["clone"], 0, len(thread)), *thread, _answer(_EPERM)]
    return b"".join(code)


def _only(number: int, argument: int, values: Sequence[int]) -> list[bytes]:
    """Allow a call where one of its arguments, an int, is among the values."""
    tests = [part for value in values for part in (_op(0x15, value, 0, 1), _answer())]
    body = [_load(16 + 8 * argument), *tests, _answer(_EPERM)]
    return [_op(0x15, number, 0, len(body)), *body]


def _unless(value: int, instruction: bytes) -> list[bytes]:
    return [_op(0x15, value, 1, 0), instruction]


def _load(offset: int) -> bytes:
    return _op(0x20, offset)


def _answer(error: int = 0, *, kill: bool = False) -> bytes:
    return _op(0x06, 0x80000000 if kill else 0x00050000 | error if error else 0x7FFF0000)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
