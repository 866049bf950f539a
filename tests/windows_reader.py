"""Reads Python as Windows would run it, and finds what is not there. No test in here.

What only other systems get to is passed over: branches of `if`, `x if ... else y`, `and` and `or` that are decided by
`sys.platform`, what follows an early end of a block or an `assert`, and what is tried and whose failing is expected
(AttributeError, ImportError). Each statement is read; nothing is run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MODULES = "crypt fcntl grp nis posix pty pwd resource spwd syslog termios tty"
_OS = """
fork forkpty getuid geteuid getgid getegid getgroups getpgid getpgrp getsid getpriority setpriority setuid seteuid
setgid setegid setgroups setpgid setsid initgroups kill killpg nice wait wait3 wait4 waitid WNOHANG WUNTRACED
WCONTINUED WIFEXITED WEXITSTATUS WIFSIGNALED WTERMSIG posix_spawn posix_spawnp register_at_fork sysconf confstr
pathconf fpathconf mkfifo mknod chown fchown lchown chroot statvfs fstatvfs sched_getaffinity sched_setaffinity
sched_yield sched_setscheduler posix_fadvise posix_fallocate pread preadv pwrite pwritev readv writev sendfile
copy_file_range splice sync fdatasync lockf openpty ttyname tcgetpgrp ctermid uname getloadavg O_DIRECTORY O_NOFOLLOW
O_NONBLOCK O_CLOEXEC O_SYNC O_DSYNC O_NOCTTY O_TMPFILE O_PATH memfd_create eventfd pidfd_open pipe2 getxattr setxattr
listxattr major minor makedev
"""
_SIGNAL = """
SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE SIGSTOP SIGTSTP SIGCONT SIGTTIN SIGTTOU SIGWINCH SIGXCPU
SIGXFSZ alarm pause setitimer getitimer pthread_kill pthread_sigmask sigpending sigwait sigwaitinfo sigtimedwait
siginterrupt SIG_BLOCK SIG_UNBLOCK SIG_SETMASK ITIMER_REAL ITIMER_VIRTUAL ITIMER_PROF
"""
_TIME = """
pthread_getcpuclockid clock_gettime clock_gettime_ns clock_settime clock_getres tzset CLOCK_MONOTONIC CLOCK_REALTIME
CLOCK_BOOTTIME CLOCK_PROCESS_CPUTIME_ID CLOCK_THREAD_CPUTIME_ID
"""
_SOCKET, _SELECT = "AF_UNIX AF_NETLINK SO_REUSEPORT send_fds recv_fds", "poll epoll kqueue devpoll"
MODULES = frozenset(_MODULES.split())
NAMES = {
    "os": frozenset(_OS.split()),
    "signal": frozenset(_SIGNAL.split()),
    "time": frozenset(_TIME.split()),
    "socket": frozenset(_SOCKET.split()),
    "select": frozenset(_SELECT.split()),
    "shutil": frozenset({"chown"}),
}
"""Not on Windows, or (os.kill) something else there."""
_METHODS = frozenset({"add_signal_handler"})  # of an event loop: not implemented there
_KEYWORDS = frozenset({"preexec_fn", "pass_fds"})  # of subprocess: refused there
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_FORGIVEN = {
    "AttributeError": {"name"}, "ImportError": {"name", "module"}, "ModuleNotFoundError": {"module"},
}  # fmt: skip


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self.found: list[tuple[int, str]] = []
        self._aliases: dict[str, str] = {}  # what a module is called here
        self._constants: dict[str, ast.expr] = {}
        self._forgiven: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._aliases |= {alias.asname or alias.name: alias.name for alias in node.names}
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target = statement.targets[0]
                self._constants |= {target.id: statement.value} if isinstance(target, ast.Name) else {}
        self.block(tree.body)

    def block(self, statements: Iterable[ast.stmt]) -> bool:
        """Read statements as far as Windows gets; whether it surely never gets past them."""
        return any(self._statement(statement) for statement in statements)

    def _statement(self, node: ast.stmt) -> bool:
        match node:
            case ast.If(test, body, orelse):
                self._expression(test)
                on_windows = self._on_windows(test)
                ends = on_windows is False or self.block(body)
                otherwise = on_windows is True or self.block(orelse)
                return ends and otherwise
            case ast.Assert(test):
                self._parts(node)
                return self._on_windows(test) is False
            case ast.Try():
                self._try(node)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                before, self._forgiven = self._forgiven, set()  # whoever calls it does not try
                self._parts(node)
                self._forgiven = before
            case ast.With(items, body) | ast.AsyncWith(items, body):
                for item in items:
                    self._expression(item.context_expr)
                with self._forgiving(*(kind for item in items for kind in _suppressed(item.context_expr))):
                    self.block(body)
            case ast.Import(names):
                self._modules(node, [alias.name for alias in names])
            case ast.ImportFrom(module=module, names=names) if module is not None:
                self._modules(node, [module])
                for alias in names:
                    self._name(node, module, alias.name)
            case _:
                self._parts(node)
        return isinstance(node, _ENDS)

    def _try(self, node: ast.Try) -> None:
        with self._forgiving(*(name for handler in node.handlers for name in _names(handler.type))):
            self.block(node.body)
        for handler in node.handlers:
            self.block(handler.body)
        self.block(node.orelse)
        self.block(node.finalbody)

    def _expression(self, node: ast.expr) -> None:
        match node:
            case ast.IfExp(test, body, orelse):
                on_windows = self._on_windows(test)
                self._expression(test)
                if on_windows is not False:
                    self._expression(body)
                if on_windows is not True:
                    self._expression(orelse)
            case ast.BoolOp(operator, values):
                for value in values:
                    self._expression(value)
                    if self._on_windows(value) is isinstance(operator, ast.Or):
                        break  # what comes after it is never asked
            case ast.Attribute(ast.Name(alias), name) if alias in self._aliases:
                self._name(node, self._aliases[alias], name)
            case ast.Attribute(_, name) if name in _METHODS:
                self._find(node, name, "name")
                self._parts(node)
            case ast.Call():
                self._call(node)
                self._parts(node)
            case _:
                self._parts(node)

    def _parts(self, node: ast.AST) -> None:
        """What a statement or an expression is made of. Annotations are words for people: nobody evaluates them."""
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns"):
                continue
            parts = value if isinstance(value, list) else [value]
            self.block(part for part in parts if isinstance(part, ast.stmt))
            for part in parts:
                if isinstance(part, ast.expr):
                    self._expression(part)
                elif isinstance(part, ast.AST) and not isinstance(part, ast.stmt):
                    self._parts(part)

    def _call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        values = [argument.value if isinstance(argument, ast.Constant) else ... for argument in node.args]
        if called == "waitpid" and values[1:] != [0]:
            self._find(node, "os.waitpid with options", "name")
        if called == "CDLL" and values[:1] == [None]:
            self._find(node, "ctypes.CDLL(None)", "call")
        if called in ("get_context", "set_start_method") and values[:1] in (["fork"], ["forkserver"]):
            self._find(node, f"multiprocessing's {values[0]}", "call")
        for keyword in node.keywords:
            if keyword.arg in _KEYWORDS:
                self._find(node, keyword.arg, "call")

    def _modules(self, node: ast.stmt, names: Iterable[str]) -> None:
        for name in names:
            if name.partition(".")[0] in MODULES:
                self._find(node, name, "module")

    def _name(self, node: ast.AST, module: str, name: str) -> None:
        if module in MODULES or name in NAMES.get(module, ()):
            self._find(node, f"{module}.{name}", "name")

    def _find(self, node: ast.AST, what: str, kind: str) -> None:
        if kind not in self._forgiven:
            self.found.append((getattr(node, "lineno", 0), what))

    @contextmanager
    def _forgiving(self, *errors: str) -> Iterator[None]:
        before = self._forgiven
        self._forgiven = before.union(*(_FORGIVEN.get(error, set()) for error in errors))
        yield
        self._forgiven = before

    def _on_windows(self, test: ast.expr) -> bool | None:
        """What a test gives there, where that is sure."""
        match test:
            case ast.UnaryOp(ast.Not(), operand):
                value = self._on_windows(operand)
                return None if value is None else not value
            case ast.BoolOp(operator, values):
                known = [self._on_windows(value) for value in values]
                decides = isinstance(operator, ast.Or)
                return decides if decides in known else None if None in known else not decides
            case ast.Compare(ast.Attribute(ast.Name("sys"), "platform"), [operator], [ast.Constant(str(word))]):
                return _compared(operator, {word})
            case ast.Compare(ast.Attribute(ast.Name("sys"), "platform"), [operator], [ast.Tuple(elements)]):
                return _compared(operator, {each.value for each in elements if isinstance(each, ast.Constant)})
            case ast.Name(name) if name in self._constants:
                return self._on_windows(self._constants[name])
        return None


def _compared(operator: ast.cmpop, words: set[object]) -> bool | None:
    if isinstance(operator, ast.Eq | ast.In):
        return "win32" in words
    return "win32" not in words if isinstance(operator, ast.NotEq | ast.NotIn) else None


def _names(expression: ast.expr | None) -> list[str]:
    """The exceptions that a handler catches."""
    each = expression.elts if isinstance(expression, ast.Tuple) else [expression]
    return [error.id for error in each if isinstance(error, ast.Name)]


def _suppressed(expression: ast.expr) -> list[str]:
    match expression:
        case ast.Call(ast.Attribute(_, "suppress") | ast.Name("suppress"), errors):
            return [error.id for error in errors if isinstance(error, ast.Name)]
    return []


def missing_on_windows(source: str) -> list[tuple[int, str]]:
    """(line, what) of everything that this source reaches on Windows and does not find there."""
    return _Reader(ast.parse(source)).found


def imported(path: Path, root: Path) -> set[Path]:
    """This file and every module below `root` that it imports, by itself or through others."""
    found, waiting = set[Path](), [path]
    while waiting:
        here = waiting.pop()
        if here in found:
            continue
        found.add(here)
        for node in ast.walk(ast.parse(here.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module, *(f"{node.module}.{name}" for name in names)]
            files = [root / f"{name.replace('.', '/')}.py" for name in names]
            waiting += [file for file in files if file.is_file()]
    return found
