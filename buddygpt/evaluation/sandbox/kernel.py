"""What Linux offers to contain a process, each as one function. Runs in a bare Python: standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from buddygpt.evaluation.sandbox.calls import filter_for

_NEW_USER, _NEW_MOUNTS, _NEW_PROCESSES, _NEW_NETWORK, _NEW_IPC = 1 << 28, 1 << 17, 1 << 29, 1 << 30, 1 << 27
_NOSUID_NODEV_NOEXEC, _RECURSIVE_PRIVATE, _DETACH = 2 | 4 | 8, 0x4000 | 0x40000, 2
_DEATH_SIGNAL, _SET_SECCOMP, _FILTER, _NO_NEW_PRIVILEGES = 1, 22, 2, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT = 444, 445, 446  # alike on all architectures
_READ_FILE, _READ_FOLDER, _WRITE_FILE, _TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
_KEEP = sum(1 << bit for bit in (1, 2, 3, 4, 5, 7, 8, 12, 13, 14))
"""Landlock's rights within the folder: files, folders and links, but nothing to execute, no devices, no sockets."""
_NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)


def enter_namespaces() -> bool:
    """Own users, mounts, network, IPC, and processes from the next fork on; False where it may not be.

    A child tries first: some systems grant only a part, from which there is no way back.
    """
    if not (trial := os.fork()):
        os._exit(0 if _enter_namespaces() else 1)
    return os.waitpid(trial, 0)[1] == 0 and _enter_namespaces()


def _enter_namespaces() -> bool:
    user, group = os.geteuid(), os.getegid()
    try:
        if user == 0:
            os.setresuid(_NOBODY, 0, 0)  # the kernel exempts root, by its real id, from the limit on processes
        _call("unshare", _NEW_USER | _NEW_MOUNTS | _NEW_PROCESSES | _NEW_NETWORK | _NEW_IPC)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text, encoding="ascii")
        _call("mount", b"none", b"/", None, _RECURSIVE_PRIVATE, None)
    except OSError:
        return False
    return True


def mount_folder(folder: str, size: int) -> None:
    """An empty folder in memory on top of `folder`."""
    options = f"size={size},nr_inodes=256,mode=700".encode()
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", _NOSUID_NODEV_NOEXEC, options)


def unmount_folder(folder: str) -> None:
    """Forget all that was written to it."""
    _call("umount2", os.fsencode(folder), _DETACH)


def set_limits(limits: Mapping[str, int]) -> None:
    """Bounds of this process, by the names of `resource` without their beginning; they can never be raised again.

    At the end of its CPU time a process gets a signal that ends it, and another second later one that it cannot ignore.
    """
    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        ceiling = resource.getrlimit(number)[1]  # ours, above which only root may go
        value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        resource.setrlimit(number, (value, value + (name == "CPU" and value != ceiling)))


def give_up_rights() -> None:
    """No capabilities, none to come from any program; and an end when the parent ends."""
    _call("prctl", _DEATH_SIGNAL, 9, 0, 0, 0)
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call("capset", struct.pack("<Ii", 0x20080522, 0), bytes(24))


def landlock_version() -> int:
    """Version of Landlock that the kernel speaks; 0 where it has none or it is switched off."""
    return max(0, _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def close_files(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Leave only some files and folders to this process (Landlock), no TCP, and no signals to others.

    Args:
        readable: files, or folders with all that is in them; those that are missing are none.
        writable: files and folders that may be changed.
    """
    version = landlock_version()
    if not version:
        raise OSError("the kernel keeps no files from a program: Landlock is missing or off (Linux 5.13 has it)")
    handled = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attribute = struct.pack("<QQQ", handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = _call("syscall", _CREATE_RULESET, attribute, size, 0)
    for paths, rights in ((readable, _READ_FILE | _READ_FOLDER), (writable, _KEEP)):
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
                only = handled if os.path.isdir(path) else _READ_FILE | _WRITE_FILE | _TRUNCATE  # noqa: PTH112
                rule = struct.pack("<Qi", rights & handled & only, place)
                _call("syscall", _ADD_RULE, rules, 1, rule, 0)
                os.close(place)
    _call("syscall", _RESTRICT, rules, 0)
    os.close(rules)


def close_calls() -> None:
    """Leave only harmless system calls to this process: see `calls`."""
    code = filter_for(platform.machine(), os.getpid())
    held = ctypes.create_string_buffer(code)
    program = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(held))
    _call("prctl", _SET_SECCOMP, _FILTER, ctypes.c_char_p(program), 0, 0)


def _call(name: str, *arguments: int | bytes | ctypes.c_char_p | None) -> int:
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = getattr(_libc, name)(*converted)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
