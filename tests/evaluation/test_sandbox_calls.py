"""The filter of system calls, on both architectures: by a machine that runs its instructions, and by the headers."""

import errno
import re
import struct
from pathlib import Path

import pytest

from buddygpt.evaluation.sandbox import calls

ALLOWED, ENDED = "allowed", "ended"
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
PID = 4711
NUMBERS = {
    "read": (0, 63), "openat": (257, 56), "futex": (202, 98), "exit_group": (231, 94), "socket": (41, 198),
    "connect": (42, 203), "execve": (59, 221), "ptrace": (101, 117), "mount": (165, 40), "unshare": (272, 97),
    "kill": (62, 129), "tgkill": (234, 131), "clone": (56, 220), "fcntl": (72, 25), "ioctl": (16, 29),
    "prlimit64": (302, 261), "truncate": (76, 45), "fchmod": (91, 52), "memfd_create": (319, 279), "prctl": (157, 167),
    "setsid": (112, 157), "bpf": (321, 280),
}  # fmt: skip


def answer(code: bytes, architecture: int, number: int, *arguments: int) -> object:
    """What the kernel would do: the few instructions of classic BPF that a filter may hold."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("<HBBI", code))
    assert len(instructions) <= 4096
    at = held = 0
    while True:
        operation, if_true, if_false, value = instructions[at]
        at += 1
        if operation == 0x20:
            held = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x06:
            if value == 0x7FFF0000:
                return ALLOWED
            return ENDED if value == 0x80000000 else value & 0xFFFF
        else:
            test = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[operation]
            at += if_true if test else if_false


@pytest.fixture(params=ARCHITECTURES)
def ask(request):
    """What is answered to a call by name on an architecture."""
    machine = request.param
    code, column = calls.filter_for(machine, PID), list(ARCHITECTURES).index(machine)

    def answered(name: str, *arguments: int) -> object:
        return answer(code, ARCHITECTURES[machine], NUMBERS[name][column], *arguments)

    answered.number = lambda number: answer(code, ARCHITECTURES[machine], number)
    answered.foreign = lambda: answer(code, 0x40000003, 0)
    return answered


@pytest.mark.parametrize("name", ["read", "openat", "futex", "exit_group"])
def test_what_every_program_needs_is_allowed(ask, name):
    assert ask(name) == ALLOWED


@pytest.mark.parametrize(
    "name",
    "socket connect execve ptrace mount unshare truncate fchmod memfd_create prctl setsid bpf".split(),
)
def test_what_reaches_out_is_refused(ask, name):
    assert ask(name) == errno.EPERM


def test_calls_are_allowed_by_their_arguments(ask):
    assert (ask("kill", PID, 9), ask("kill", PID + 1, 9), ask("kill", 0, 9)) == (ALLOWED, errno.EPERM, errno.EPERM)
    assert (ask("kill", (1 << 32) - 1, 9), ask("tgkill", PID, 1, 9), ask("tgkill", 1, 1, 9)) == (1, ALLOWED, 1)
    assert (ask("clone", 0x3D0F00), ask("clone", 17), ask("clone", 1 << 28)) == (ALLOWED, 1, 1)
    assert (ask("fcntl", 1, 1030), ask("fcntl", 1, 8), ask("fcntl", 1, 15)) == (ALLOWED, 1, 1)
    assert (ask("ioctl", 1, 0x5401), ask("ioctl", 1, 0x5412)) == (ALLOWED, 1)
    assert (ask("prlimit64", 0), ask("prlimit64", PID)) == (ALLOWED, 1)


def test_newer_calls_are_not_there_and_foreign_ones_end_the_program(ask):
    for number in (424, 425, 434, 435, 452, 463, 0x40000000, 0xFFFFFFFF):
        assert ask.number(number) == errno.ENOSYS
    assert ask.foreign() == ENDED


def test_an_unknown_machine_is_named():
    with pytest.raises(LookupError, match="riscv64"):
        calls.filter_for("riscv64", PID)


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_the_kernels_own(machine):
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not here")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s", header.read_text("utf-8"))
    known = {"fstatat": "newfstatat"} if machine == "aarch64" else {}
    numbers = {known.get(name, name): int(number) for name, number in found}
    column = list(HEADERS).index(machine)
    ours = {entry.split()[0]: entry.split()[1 + column] for entry in re.split(r"[|\n]", calls._PLAIN) if entry.strip()}
    ours |= {name: str(columns[column]) for name, columns in calls._CHECKED.items()}
    assert len(ours) > 90
    for name, number in ours.items():
        assert (str(numbers[name]) if name in numbers else "-") == number, name
    for name, columns in NUMBERS.items():
        assert numbers[name] == columns[column], name
