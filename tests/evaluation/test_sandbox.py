"""Hostile programs come to nothing, with namespaces and where the kernel grants none."""

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from buddygpt.evaluation.sandbox import box as boxes
from buddygpt.evaluation.sandbox.box import Limits, Sandbox, permitted
from buddygpt.evaluation.sandbox.outcome import Kind, Outcome
from tests.evaluation.containment import needs_containment

pytestmark = needs_containment

LIMITS = Limits(cpu_seconds=1, wall_seconds=20, memory_bytes=512 << 20, output_bytes=1 << 20, folder_bytes=1 << 20)
REFUSED = "PermissionError"
NO_NAMESPACES = "from buddygpt.evaluation.sandbox import kernel; kernel.enter_namespaces = lambda: False; "


@pytest.fixture(scope="module", params=["namespaces", "no namespaces"])
def box(request):
    """One box for all hostile programs: what one does must not touch the next."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "no namespaces":
            patch.setattr(boxes, "_START", boxes._START.replace("from buddygpt", NO_NAMESPACES + "from buddygpt", 1))
        with permitted(), Sandbox(LIMITS) as sandbox:
            if request.param == "namespaces" and not sandbox.namespaces:
                pytest.skip("this kernel grants no namespaces")
            yield sandbox
            wardens, folder = [sandbox._warden.pid, *descendants(sandbox._warden.pid)], sandbox._folder
            assert folder.is_dir()
        assert not [pid for pid in wardens if Path("/proc", str(pid)).exists()]
        assert not folder.exists()


@pytest.fixture(autouse=True)
def nothing_stays(request):
    """No process, zombie or file outlives a program, and the box serves on."""
    yield
    if "box" in request.fixturenames:
        sandbox = request.getfixturevalue("box")
        expected = 1 if sandbox.namespaces else 0
        assert len(descendants(sandbox._warden.pid)) == expected
        assert sandbox.run("import os; print(os.listdir())") == Outcome(Kind.ENDED, "[]\n")


@pytest.fixture
def sentinel():
    """A file in the home of whoever runs the tests."""
    with tempfile.NamedTemporaryFile("w", dir=Path.home(), prefix=".sentinel-", encoding="utf-8") as file:
        file.write("untouched")
        file.flush()
        yield Path(file.name)
        assert Path(file.name).read_text("utf-8") == "untouched"


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        return []
    return [found for child in children for found in (int(child), *descendants(int(child)))]


def failure(outcome: Outcome) -> str:
    assert outcome.kind is Kind.ERROR, outcome
    return outcome.detail


def test_a_program_reads_prints_writes_in_its_folder_and_ends(box):
    source = "name = input()\nopen('a', 'w').write(name) if {} else 0\nprint('你好', name, __name__)\nexit(3)"
    assert box.run(source.format(box.namespaces), "贝贝\n") == Outcome(Kind.ENDED, "你好 贝贝 __main__\n")


def test_a_function_is_called_with_plain_data_and_answers_plain_data(box):
    value = {"a": [1, 2.5, None, True], (1, 2): {3}, "big": -(1 << 200), "f": frozenset([1j])}
    assert box.call("def same(x, y): print('noise'); return x, y", "same", value, "z") == Outcome(
        Kind.ENDED, "noise\n", (value, "z")
    )
    assert box.call("class Solution:\n    def one(self): return 1", "one").value == 1


def test_an_error_is_told_by_its_last_line(box):
    assert box.run("print('before')\n[][1]") == Outcome(
        Kind.ERROR, "before\n", detail="IndexError: list index out of range"
    )
    assert failure(box.run("if")).startswith("SyntaxError")
    assert failure(box.call("x = 1", "missing")).startswith("AttributeError")


def test_results_are_the_same_each_time(box):
    source = "import random, time; print(random.random(), hash('a'), time.localtime().tm_zone)"
    with permitted(), Sandbox(LIMITS) as other:
        assert len({box.run(source).printed, box.run(source).printed, other.run(source).printed}) == 1


def test_threads_and_what_is_registered_for_the_end_are_waited_for(box):
    source = (
        "import atexit, threading, time\natexit.register(lambda: print('last'))\nthreading.stack_size(64 << 20)\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()\nprint('main')"
    )
    assert box.run(source).printed == "main\nthread\nlast\n"


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "from signal import *\nfor s in {*valid_signals()} - {9, 19}: signal(s, SIG_IGN)\nwhile True: pass",
        "x = []\nwhile True:\n  try: x.append(bytearray(1 << 20))\n  except MemoryError: pass",
    ],
    ids=["loop", "deaf to signals", "hoards memory after each failure"],
)
def test_a_program_that_reckons_without_end_is_ended(box, source):
    assert box.run(source).kind is Kind.TIMED_OUT


def test_a_program_that_waits_without_end_is_ended(box):
    with Sandbox(replace(LIMITS, wall_seconds=0.4)) as hasty:
        for source in (
            "import time; time.sleep(60)",
            "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
            "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()",
            "import time\nclass E(Exception):\n  def __str__(self): time.sleep(60)\nraise E",
        ):
            assert hasty.run(source).kind is Kind.TIMED_OUT, source


@pytest.mark.parametrize(
    "source",
    ["x = [0] * (10 << 27)", "x = []\nwhile True: x.append(bytes(1 << 20))", "x = 'a' * (1 << 33)"],
)
def test_memory_has_a_bound(box, source):
    """Of addresses: pages that nobody writes to cost no time, which has a bound too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of whatever other tests have started here
    assert box.run(source).kind is Kind.OUT_OF_MEMORY
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(before, 700_000)  # KiB


@pytest.mark.parametrize("end", ["1", "3"], ids=["output", "answers"])
def test_what_is_printed_is_cut_while_it_is_read(box, end):
    outcome = box.run(f"import os\nwhile True: os.write({end}, b'x' * 65536)")
    assert outcome.kind is Kind.TOO_MUCH
    assert len(outcome.printed) == (LIMITS.output_bytes if end == "1" else 0)


def test_output_at_the_limit_is_not_too_much(box):
    size = LIMITS.output_bytes
    assert box.run(f"print('x' * {size}, end='')") == Outcome(Kind.ENDED, "x" * size)
    assert box.run(f"print('x' * {size + 1}, end='')").kind is Kind.TOO_MUCH


def test_files_have_a_bound_one_by_one_and_together(box):
    one = "f = open('a', 'wb')\nwhile True: f.write(bytes(1 << 20))"
    many = "for i in range(10**6): open(str(i), 'wb').write(bytes(1 << 19))"
    for source in (one, many):
        assert failure(box.run(source)).startswith(("OSError: [Errno 27]", "OSError: [Errno 28]", REFUSED))


@pytest.mark.parametrize(
    "attempt",
    [
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.execv('/bin/true', ['true'])",
        "subprocess.run(['true'])",
        "multiprocessing.Process(target=print).start()",
        "os.system('true') and os.fork()",
        "os.fork() or (os.setsid(), os.fork() or time.sleep(60))",
    ],
)
def test_no_process_is_started_so_that_none_multiplies_or_is_left_behind(box, attempt):
    source = f"import os, subprocess, multiprocessing, time\nwhile True: {attempt}"
    assert failure(box.run(source)).startswith(REFUSED)


def test_threads_have_a_bound(box):
    source = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    assert box.run(source).kind in (Kind.ERROR, Kind.OUT_OF_MEMORY)


@pytest.mark.parametrize("attempt", ["open('/etc/passwd')", "open(path)", "os.listdir(os.path.dirname(path))"])
def test_no_file_of_the_machine_is_read(box, sentinel, attempt):
    assert failure(box.run(f"import os\npath = {str(sentinel)!r}\n{attempt}")).startswith(REFUSED)


@pytest.mark.parametrize(
    "attempt",
    [
        "open(path, 'w')",
        "os.remove(path)",
        "os.rename(path, path + 'x')",
        "os.truncate(path, 0)",
        "os.chmod(path, 0)",
        "os.chown(path, 1, 1)",
        "os.utime(path)",
        "os.setxattr(path, 'user.a', b'')",
        "os.link(path, 'x')",
        "os.mkdir(path + 'x')",
        "open('/tmp/x', 'w')",
        "open('../x', 'w')",
        "os.mkfifo('/tmp/x')",
    ],
)
def test_no_file_outside_is_changed(box, sentinel, attempt):
    before = sentinel.stat()
    detail = failure(box.run(f"import os\npath = {str(sentinel)!r}\n{attempt}"))
    assert detail.startswith((REFUSED, "OSError: [Errno 18]"))
    after = sentinel.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


def test_a_link_leads_nowhere(box, sentinel):
    source = f"import os\nos.symlink({str(sentinel)!r}, 'x')\nopen('x', MODE)"
    for mode in ("'r'", "'w'"):
        assert failure(box.run(source.replace("MODE", mode))).startswith(REFUSED)
    assert failure(box.run("import os\nfor _ in range(20): os.chdir('..')\nopen('etc/passwd')")).startswith(REFUSED)


def test_no_server_is_reached(box):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        local = ("127.0.0.1", server.getsockname()[1])
        for attempt in (
            f"socket.create_connection({local!r}, 1)",
            "socket.create_connection(('1.1.1.1', 53), 1)",
            "socket.create_connection(('::1', 80), 1)",
            "socket.socket(type=socket.SOCK_DGRAM)",
            "socket.socket(socket.AF_UNIX)",
            "socket.socketpair()",
        ):
            assert failure(box.run(f"import socket\n{attempt}")).startswith(REFUSED)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_no_secret_of_the_environment_is_seen(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    with permitted(), Sandbox(LIMITS) as box:
        source = "import os, ctypes\nprint(dict(os.environ), ctypes.CDLL(None).getenv(b'HF_TOKEN'))"
        outcome = box.run(source)
        assert outcome.kind is Kind.ENDED
        assert "secret" not in outcome.printed
        assert outcome.printed.strip().endswith(" 0")
        for pid in ("self", "1", os.getpid(), box._warden.pid):
            assert failure(box.run(f"open('/proc/{pid}/environ')")).startswith(REFUSED)


@pytest.mark.parametrize("target", ["os.getppid()", "-1", "0", "1", "JUDGE"])
def test_no_other_process_gets_a_signal(box, target):
    target = target.replace("JUDGE", str(os.getpid()))
    assert failure(box.run(f"import os, signal\nos.kill({target}, signal.SIGKILL)")).startswith(REFUSED)


def test_signals_by_other_ways_are_refused(box):
    for attempt in (
        "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
        "os.killpg(os.getpgid(0), 9)",
        "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)",
        "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
        "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    ):
        source = f"import fcntl, os, resource, signal\n{attempt}"
        assert failure(box.run(source)).startswith((REFUSED, "OSError: [Errno 38]"))


def test_its_limits_cannot_be_raised(box):
    for name in ("CPU", "AS", "FSIZE", "NOFILE"):
        source = f"import resource\nresource.setrlimit(resource.RLIMIT_{name}, (1 << 40, 1 << 40))"
        assert failure(box.run(source)).startswith((REFUSED, "ValueError: not allowed to raise"))


def test_a_stricter_limit_of_the_user_stays(box, monkeypatch):
    """A batch system may have set one: it is taken, not an obstacle."""
    strict = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)); "
    monkeypatch.setattr(boxes, "_START", strict + boxes._START)
    with Sandbox(LIMITS) as other:
        assert other.run("import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))").printed == "(40, 40)\n"


def test_the_kernel_called_by_hand_refuses_as_well(box):
    source = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for call in (
    lambda: libc.socket(2, 1, 0), lambda: libc.fork(), lambda: libc.unshare(1 << 28), lambda: libc.ptrace(16, 1, 0, 0),
    lambda: libc.mount(b"none", b"/", None, 0, None), lambda: libc.chroot(b"/"), lambda: libc.setresuid(0, 0, 0),
    lambda: libc.syscall(425, 1, 0), lambda: libc.syscall(435, 0, 0), lambda: libc.syscall(0x40000000 + 41, 2, 1, 0),
    lambda: libc.memfd_create(b"x", 0), lambda: libc.shmget(0, 1 << 20, 0o1600), lambda: libc.open(b"/etc/passwd", 0),
    lambda: libc.process_vm_readv(1, 0, 0, 0, 0, 0), lambda: libc.prctl(1, 0, 0, 0, 0),
):
    print(call(), end=" ")
"""
    outcome = box.run(source)
    assert set(outcome.printed.split()) == {"-1"}, outcome
    assert len(outcome.printed.split()) == 15


@pytest.mark.parametrize("crash", ["ctypes.string_at(0)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_a_crash_is_told_as_a_kill(box, crash):
    outcome = box.run(f"import ctypes, os\n{crash}")
    assert (outcome.kind, outcome.detail.startswith("signal ")) == (Kind.KILLED, True)


def test_deep_recursion_ends(box):
    assert failure(box.run("def f(): f()\nf()")).startswith("RecursionError")
    deep = box.run("import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return repr([f(n + 1)])\nf(0)")
    assert deep.kind in (Kind.KILLED, Kind.OUT_OF_MEMORY, Kind.TIMED_OUT)


def test_closed_output_is_no_output(box):
    for source in (
        "import os; os.close(1); print('x')",
        "import sys; sys.stdout.close()",
        "import os; os.closerange(0, 64)",
    ):
        assert box.run(source) == Outcome(Kind.ENDED)


FAKES = {
    "exit": "import os\ndef f(x): os._exit(0)",
    "exit by sys": "import sys\ndef f(x): sys.exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "prints": "def f(x): print('passed', 42, '{\"value\": 42}')",
    "equals everything": "class E:\n  def __eq__(self, other): return True\ndef f(x): return E()",
    "a list that equals": "class L(list):\n  def __eq__(self, other): return True\ndef f(x): return L([0])",
    "an int that equals": "class I(int):\n  def __eq__(self, other): return True\ndef f(x): return I(0)",
    "answers twice": "import os\ndef f(x):\n  os.write(3, b'{\"ended\": true}')\n  return 0",
    "other answers": 'import os\ndef f(x):\n  os.write(3, b\'{"value": {"eval": "42"}}\'); os._exit(0)',
    "not JSON": "import os\ndef f(x):\n  os.write(3, b'[' * 100000); os._exit(0)",
    "not a value": 'import os\ndef f(x):\n  os.write(3, b\'{"value": {"set": [[1]]}}\'); os._exit(0)',
    "builtins": "import builtins, json\nbuiltins.getattr = None\njson.dumps = lambda *a: 'null'\ndef f(x): return 0",
}


@pytest.mark.parametrize("source", FAKES.values(), ids=FAKES)
def test_an_answer_is_data_and_cannot_pretend(box, source):
    outcome = box.call(source, "f", 1)
    assert outcome.kind is Kind.ERROR or type(outcome.value) in (int, list, type(None))
    assert outcome.value not in (42, [42])


def test_the_warden_dies_with_its_judge():
    script = (
        "from buddygpt.evaluation.sandbox.box import *\n"
        "with permitted(), Sandbox(Limits(wall_seconds=100)) as box:\n"
        "    print(box._warden.pid, box._folder, flush=True); box.run('import time; time.sleep(90)')"
    )
    judge = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    warden, folder = judge.stdout.readline().decode("utf-8").split()
    warden = int(warden)
    until(lambda: len(descendants(warden)) >= 2 or not Path(f"/proc/{warden}/ns/net").exists())
    family = [warden, *descendants(warden)]
    judge.kill()
    judge.wait()
    judge.stdout.close()
    until(lambda: not any(is_running(pid) for pid in family))
    assert not Path(folder).exists()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_box_goes_on_when_its_warden_was_killed():
    with permitted(), Sandbox(LIMITS) as box:
        for pid in (*descendants(box._warden.pid), box._warden.pid):
            os.kill(pid, signal.SIGKILL)
        assert box.run("print(1)").kind is Kind.KILLED
        assert box.run("print(1)") == Outcome(Kind.ENDED, "1\n")
