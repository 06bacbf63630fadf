"""A Trio that has changed what we rely on is refused, with its version and what has changed.

Each kind of change is faked in the Trio that is installed. Functions are compiled with the globals
of Trio's own module, as a change of Trio's would be.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
import types
from typing import Any

import pytest
import trio
from trio._core import _run

import trio_backends

Patch = pytest.MonkeyPatch


def in_module(module: types.ModuleType, source: str) -> Any:
    """The function that the source defines, as if the module had it."""
    defined: dict[str, Any] = {}
    exec(textwrap.dedent(source), vars(module), defined)
    (function,) = defined.values()
    return function


@pytest.fixture
def changed(monkeypatch: Patch) -> Patch:
    """To change something else of Trio's with: what was found out before counts no more when a
    function of Trio's runner is another object.
    """
    same = _run.setup_runner
    again = types.FunctionType(same.__code__, vars(_run), closure=same.__closure__)
    monkeypatch.setattr(_run, "setup_runner", again)
    return monkeypatch


def assert_refused(what: str) -> None:
    with pytest.raises(trio_backends.ContractBroken, match=what) as caught:
        trio_backends.run(trio.sleep, 0)
    assert str(caught.value).startswith(f"trio {trio.__version__} is not supported: ")
    with pytest.raises(trio_backends.ContractBroken, match=what):
        with trio_backends.installed():
            pytest.fail("entered")


def stock() -> Any:
    return _run.TheIOManager  # type: ignore[attr-defined]


def test_this_trio_is_supported(changed: Patch) -> None:
    trio_backends.run(trio.sleep, 0)


@pytest.mark.parametrize("name", ["TheIOManager", "GLOBAL_RUN_CONTEXT", "Runner", "unrolled_run"])
def test_a_name_that_is_gone(name: str, changed: Patch) -> None:
    changed.delattr(_run, name)
    assert_refused(f"trio._core._run has no {name}")


def test_a_method_with_other_parameters(changed: Patch) -> None:
    class Changed(stock()):  # type: ignore[misc]
        def get_events(self, timeout: float, batch: int) -> list[object]:
            return []

    changed.setattr(_run, "TheIOManager", Changed)
    assert_refused(r"IOManager.get_events\(\) takes .*batch")


@pytest.mark.parametrize("name", ["force_wakeup", "wait_writable"])
def test_a_method_that_is_gone(name: str, changed: Patch) -> None:
    changed.delattr(stock(), name)
    assert_refused(rf"IOManager has no {name}\(\)")


def test_a_field_of_the_runner_that_is_gone(changed: Patch) -> None:
    fields = [one for one in _run.Runner.__attrs_attrs__ if one.name != "is_guest"]
    changed.setattr(_run.Runner, "__attrs_attrs__", tuple(fields))
    assert_refused("Runner has no is_guest")


def test_a_manager_that_is_made_elsewhere_too(changed: Patch) -> None:
    function = in_module(_run, "def warm_up(): return TheIOManager()")
    changed.setattr(_run, "warm_up", function, raising=False)
    assert_refused(r"TheIOManager is used by \['setup_runner', 'warm_up'\]")


def test_a_manager_that_is_made_with_arguments(changed: Patch) -> None:
    source = """
        def setup_runner(clock, *rest):
            return Runner(io_manager=TheIOManager(clock))
    """
    changed.setattr(_run, "setup_runner", in_module(_run, source))
    assert_refused("does not call TheIOManager without arguments")


def test_another_way_to_start_a_run(changed: Patch) -> None:
    function = in_module(_run, "def start_nested_run(*options): return setup_runner(*options)")
    changed.setattr(_run, "start_nested_run", function, raising=False)
    assert_refused(r"setup_runner is used by .*start_nested_run")


@pytest.mark.parametrize("use", ["runner.io_manager.flush()", "print(runner.io_manager)"])
def test_another_use_of_the_manager(use: str, changed: Patch) -> None:
    function = in_module(_run, f"def tick(runner): {use}")
    changed.setattr(_run, "tick", function, raising=False)
    assert_refused(r"uses .*'(flush|\(itself\))'.* of its IOManager")


def test_a_use_of_the_manager_that_is_gone(changed: Patch) -> None:
    changed.setattr(_run.Runner, "force_guest_tick_asap", in_module(_run, "def f(self): pass"))
    assert_refused(r"uses \['close', 'get_events', 'process_events', 'statistics'\]")


def test_instruments_that_do_not_hear_of_the_run(changed: Patch) -> None:
    changed.setattr(_run, "unrolled_run", in_module(_run, "def unrolled_run(runner): yield 0"))
    changed.setattr(
        _run, "keep", in_module(_run, "def keep(m): m.io_manager.process_events"), raising=False
    )
    assert_refused("unrolled_run no longer calls the instruments' before_run")


def exports() -> types.ModuleType:
    (name,) = (name for name in sys.modules if name.startswith("trio._core._generated_io_"))
    return sys.modules[name]


@pytest.mark.parametrize(
    ("function", "what"),
    [
        ("wait_error(fd): m.io_manager.wait_error(fd)", r"takes .*'wait_error'.* from its manager"),
        ("wait_readable(fd): m.io_manager.wait(fd)", r"wait_readable\(\) does not call"),
        ("wait_readable(fd): pass", r"wait_readable\(\) does not call"),
    ],
)
def test_another_export(function: str, what: str, changed: Patch) -> None:
    name = function.partition("(")[0]
    changed.setattr(exports(), name, in_module(exports(), f"def {function}"), raising=False)
    assert_refused(what)


def test_an_export_that_is_gone(changed: Patch) -> None:
    changed.delattr(exports(), "notify_closing")
    assert_refused("from its manager, not .*notify_closing")


def test_a_manager_of_an_unknown_kind(changed: Patch) -> None:
    changed.delitem(sys.modules, exports().__name__)
    assert_refused("IOManager for .* is unknown to us")


KQUEUE = {
    "wait_readable": "fd",
    "wait_writable": "fd",
    "notify_closing": "fd",
    "current_kqueue": "",
    "monitor_kevent": "ident, filter",
    "wait_kevent": "ident, filter, abort_func",
}


@pytest.mark.parametrize("missing", [None, "wait_kevent"])
def test_on_kqueue_trio_has_three_more(missing: str | None, changed: Patch) -> None:
    module = types.ModuleType("trio._core._generated_io_kqueue")
    methods: dict[str, Any] = {}
    for name, parameters in KQUEUE.items():
        call = f"def {name}({parameters}): return m.io_manager.{name}({parameters})"
        setattr(module, name, in_module(module, call))
        methods[name] = in_module(_run, f"def {name}(self, {parameters}): pass")
    changed.delitem(sys.modules, exports().__name__)
    changed.setitem(sys.modules, module.__name__, module)
    changed.setattr(_run, "TheIOManager", type("KqueueIOManager", (stock(),), methods))
    if missing is None:
        trio_backends.run(trio.sleep, 0)
        return
    changed.delattr(module, missing)
    assert_refused("from its manager, not .*wait_kevent")


def test_a_run_that_uses_another_manager_is_stopped(backend: str) -> None:
    """Trio swallows what an instrument raises, so this is asked of the runner, not of ours."""
    stolen = []

    class Thief(trio.abc.Instrument):
        def before_run(self) -> None:
            stolen.append(_run.GLOBAL_RUN_CONTEXT.runner.io_manager)
            _run.GLOBAL_RUN_CONTEXT.runner.io_manager = stock()()

    async def main() -> None:
        pytest.fail("it runs")

    with pytest.raises(trio_backends.ContractBroken, match="IOManager that was given to it"):
        trio_backends.run(main, backend=backend, instruments=[Thief()])
    assert stolen


def test_our_manager_takes_what_trios_takes() -> None:
    async def kind_of_manager() -> type:
        return type(trio_backends.current_manager())

    ours = trio_backends.run(kind_of_manager)
    for name in ("get_events", "process_events", "force_wakeup", "statistics", "close"):
        parameters = [inspect.signature(getattr(kind, name)).parameters for kind in (ours, stock())]
        assert tuple(parameters[0]) == tuple(parameters[1])
