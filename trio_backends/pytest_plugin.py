"""The pytest plugin: ``pytest --trio-backend=io_uring``, or several, for each Trio test on each.

A Trio test is an async test that pytest-trio runs, or anyio's plugin on Trio. Of several backends
it gets one item for each, with the backend in its id. Whatever else calls ``trio.run`` in the
session does so on the first one.

Nothing of Trio, and no other module of this package, is imported before the option is used.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

_PARAMETER = "_trio_backend"
_ANYIO = "anyio_backend"
_ParameterSet: Any = type(pytest.param())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("trio_backends", "Trio on other I/O backends").addoption(
        "--trio-backend",
        action="append",
        metavar="NAME[,NAME]",
        help="run Trio tests on io_uring, kqueue, epoll, stock (Trio's own) or auto; on each of "
        "several, separated by commas or given one by one",
    )


def pytest_configure(config: pytest.Config) -> None:
    given: list[str] = config.getoption("--trio-backend") or []
    names = [name.strip() for one in given for name in one.split(",")]
    if names:
        config.pluginmanager.register(_Backends(config, names), "trio_backends-in-use")


@pytest.fixture(name=_PARAMETER)
def _trio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


class _Backends:
    """Registered only where the option is used."""

    def __init__(self, config: pytest.Config, names: list[str]) -> None:
        from . import BackendUnavailable, ContractBroken, _choose, installed

        self._config = config
        self._installed = installed
        self._whole_session = contextlib.ExitStack()
        try:
            for i, name in enumerate(names):
                if name == _choose.AUTO:
                    manager = _choose.choose(name)
                    manager.close()
                    names[i] = manager.backend
                with installed(names[i]):
                    pass
            self._whole_session.enter_context(installed(names[0]))
        except (BackendUnavailable, ContractBroken, ValueError) as error:
            raise pytest.UsageError(f"--trio-backend: {error}") from None
        self._names = list(dict.fromkeys(names))
        # Async fixtures; how to finish those that anyio has set up, and on what it did.
        self._async_fixtures: set[pytest.FixtureDef[Any]] = set()
        self._anyio_fixtures: list[Callable[[], object]] = []
        self._anyio_runs_on: object = None

    def pytest_unconfigure(self) -> None:
        self._whole_session.close()

    def pytest_report_header(self) -> str:
        return f"trio backends: {', '.join(self._names)}"

    # -- which tests ------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        function = metafunc.function
        if hasattr(function, "hypothesis"):
            function = function.hypothesis.inner_test
        if len(self._names) == 1 or not inspect.iscoroutinefunction(function):
            return
        if _ANYIO in metafunc.fixturenames:
            self._multiply_anyio_test(metafunc)
        elif metafunc.definition.get_closest_marker("trio") or self._is_trio_mode():
            self._multiply(metafunc)

    def _is_trio_mode(self) -> bool:
        plugins = self._config.pluginmanager
        if not plugins.has_plugin("trio") and not plugins.has_plugin("pytest_trio.plugin"):
            return False
        # The setting, or a conftest that imports everything from pytest_trio.enable_trio_mode.
        hooks = (getattr(p, "pytest_collection_modifyitems", None) for p in plugins.get_plugins())
        modules = {getattr(hook, "__module__", None) for hook in hooks}
        return bool(self._config.getini("trio_mode")) or "pytest_trio.enable_trio_mode" in modules

    def _multiply(self, metafunc: pytest.Metafunc) -> None:
        metafunc.fixturenames.append(_PARAMETER)
        metafunc.parametrize(_PARAMETER, self._names, indirect=True, scope="function")

    def _multiply_anyio_test(self, metafunc: pytest.Metafunc) -> None:
        fixtures = metafunc._arg2fixturedefs.get(_ANYIO)
        direct = any(_ANYIO in mark.args[0] for mark in _parametrize_marks(metafunc.definition))
        if direct or not fixtures:
            # pytest_collection_modifyitems() drops what is not Trio's.
            self._multiply(metafunc)
            return
        choices = list(self._anyio_choices(fixtures[-1]))
        if choices:
            metafunc.fixturenames.append(_PARAMETER)
            # As a mark it takes precedence over the fixture's own parameters.
            both = pytest.mark.parametrize(
                (_ANYIO, _PARAMETER), choices, indirect=True, scope=fixtures[-1].scope
            )
            metafunc.definition.add_marker(both)

    def _anyio_choices(self, fixture: pytest.FixtureDef[Any]) -> Iterator[Any]:
        """Pairs of what the fixture anyio_backend is and, if that is Trio, the backend."""
        if fixture.params is None:
            with contextlib.suppress(Exception):
                # A constant, nearly always. If we cannot know we take it for Trio.
                if not fixture.argnames and not _is_trio(fixture.func()):
                    return
            yield from (pytest.param(None, name, id=name) for name in self._names)
            return
        choices: Sequence[Any] = fixture.params
        for i, choice in enumerate(choices):
            given: Any
            marks: Any = ()
            given = fixture.ids[i] if isinstance(fixture.ids, (tuple, list)) else None
            if isinstance(choice, _ParameterSet):
                given, marks, choice = choice.id or given, choice.marks, choice.values[0]
            label = given or (choice if isinstance(choice, str) else f"{choice[0]}{i}")
            if not _is_trio(choice):
                yield pytest.param(choice, None, id=label, marks=marks)
                continue
            for name in self._names:
                yield pytest.param(choice, name, id=f"{label}-{name}", marks=marks)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        def is_wanted(item: pytest.Item) -> bool:
            chosen = _parameters(item)
            loop = chosen.get(_ANYIO)
            return loop is None or _is_trio(loop) or chosen.get(_PARAMETER) in self._none_or_first

        items[:] = [item for item in items if is_wanted(item)]

    @property
    def _none_or_first(self) -> tuple[None, str]:
        return None, self._names[0]

    # -- running them -----------------------------------------------------------------

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        with self._installed(_parameters(item).get(_PARAMETER) or self._names[0]):
            yield

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """anyio keeps its run, and the results of wider fixtures, as long as one of them lives:
        they must not live on into a test on another backend.
        """
        if len(self._names) == 1 or _ANYIO not in getattr(item, "fixturenames", ()):
            return
        chosen = _parameters(item)
        runs_on = (repr(chosen.get(_ANYIO)), chosen.get(_PARAMETER))
        if runs_on != self._anyio_runs_on:
            self._anyio_runs_on = runs_on
            while self._anyio_fixtures:
                self._anyio_fixtures.pop()()

    # A wrapper, to see the function before anyio's plugin exchanges it, some versions for good.
    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Iterator[None]:
        function = fixturedef.func
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            self._async_fixtures.add(fixturedef)
        is_wide = fixturedef in self._async_fixtures and fixturedef.scope != "function"
        if is_wide and _ANYIO in request.fixturenames:
            finish: Callable[..., object] = fixturedef.finish
            self._anyio_fixtures.append(lambda: finish(request))
        yield


def _is_trio(choice: object) -> bool:
    """Of anyio: the name of an event loop, or that and options."""
    return choice == "trio" or (isinstance(choice, tuple) and choice[:1] == ("trio",))


def _parameters(item: pytest.Item) -> dict[str, Any]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec is not None else {}


def _parametrize_marks(node: pytest.Item) -> Iterator[pytest.Mark]:
    return (mark for mark in node.iter_markers("parametrize") if mark.args)
