"""Backends are found by name, import string or file; an error says what to do instead."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bn_spec.backend.adapters.reference_backend import Reference, reference
from bn_spec.backend.registry import BY_DEFAULT, GROUP, load, registered, select
from bn_spec.errors import BackendError, BrokenBackend, UnavailableBackend, UnknownBackend

MODULE = """
from bn_spec import UnavailableBackend
from bn_spec.backend.adapters.reference_backend import Reference


class Named(Reference):
    def __init__(self, name):
        self.name = name


kernel = Named("kernel")
_private = Named("private")


def made():
    return Named("made")


def absent():
    raise UnavailableBackend("this machine has no abacus")


def failing():
    raise RuntimeError("the driver is too old")


def greedy(device):
    return kernel


class Undeclared(Reference):
    @property
    def description(self):
        raise RuntimeError("no device to describe")


undeclared = Undeclared()
number = 3
incomplete = type("Incomplete", (), {"name": "incomplete", "description": "", "layer": None})()
boastful = Named("boastful")
boastful.capabilities = {"dtypes": ["float32"]}
spaced = Named("two words")
numbered = Named(7)
impostor = Named("reference")
"""

BROKEN_MODULE = 'raise RuntimeError("compile me first")\n'
NEEDY_MODULE = "import a_framework_that_nobody_has\n"

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a file into a folder on the path of imports; its modules are unloaded afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def written(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    yield written
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if str(tmp_path) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def module(write: Write) -> str:
    write("some_kernels.py", MODULE)
    return "some_kernels"


@pytest.fixture
def install(write: Write) -> Callable[[str], None]:
    """Install a distribution whose entry points are the given lines."""

    def installed(lines: str) -> None:
        write("some_kernels.py", MODULE)
        write(
            "some_kernels-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: some-kernels\nVersion: 1.0\n",
        )
        write("some_kernels-1.0.dist-info/entry_points.txt", f"[{GROUP}]\n{lines}\n")

    return installed


def refusal(name: str, kind: type[BackendError]) -> str:
    with pytest.raises(BackendError) as refused:
        load(name)
    assert type(refused.value) is kind
    return str(refused.value)


# Where a backend is found -------------------------------------------------------------


def test_the_backends_of_a_run_without_names_are_registered_in_the_order_of_their_names() -> None:
    assert tuple(name for name in registered() if name in BY_DEFAULT) == BY_DEFAULT


def test_a_registered_name_gives_its_backend() -> None:
    assert load("reference") is reference


def test_the_entry_point_of_an_installed_distribution_is_found(
    install: Callable[[str], None],
) -> None:
    install("abacus = some_kernels:kernel\ncounting-frame = some_kernels:made")
    assert list(registered()) == sorted(registered())
    assert load("abacus").name == "kernel"
    assert load("counting-frame").name == "made"


def test_an_import_string_gives_the_attribute_of_a_module(module: str) -> None:
    assert load(f"{module}:kernel").name == "kernel"


def test_a_function_without_arguments_is_called_for_its_backend(module: str) -> None:
    assert load(f"{module}:made").name == "made"


def test_a_backend_class_is_instantiated() -> None:
    assert isinstance(load("bn_spec.backend.adapters.reference_backend:Reference"), Reference)


def test_a_file_gives_its_attribute_by_absolute_and_by_relative_path(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("own.py", MODULE)
    monkeypatch.chdir(tmp_path)
    assert load(f"{path}:kernel").name == "kernel"
    assert load("own.py:kernel") is load(f"{path}:kernel")


def test_files_of_one_name_in_two_folders_are_two_modules(write: Write) -> None:
    one = write("one/kernels.py", MODULE)
    two = write("two/kernels.py", MODULE.replace('"kernel"', '"other"'))
    assert [load(f"{path}:kernel").name for path in (one, two)] == ["kernel", "other"]


def test_a_file_that_failed_is_read_anew_the_next_time(write: Write) -> None:
    path = write("own.py", BROKEN_MODULE)
    refusal(f"{path}:kernel", BrokenBackend)
    path.write_text(MODULE + "# repaired, and of another length\n")
    assert load(f"{path}:kernel").name == "kernel"


# What is not found --------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_what_exists_the_nearest_and_the_other_forms() -> None:
    sentence = refusal("torch-gpu", UnknownBackend)
    assert sentence.startswith("backend 'torch-gpu' is not known; known: ")
    for part in (
        *BY_DEFAULT,
        "did you mean 'torch-cpu'?",
        "package.module:attribute or path/to/file.py:attribute",
    ):
        assert part in sentence


def test_a_missing_module_is_named(write: Write) -> None:
    write("package/__init__.py", "")
    for name, missing in (
        ("nobody_has_this:kernel", "nobody_has_this"),
        ("package.kernels:kernel", "package.kernels"),
    ):
        sentence = refusal(name, UnknownBackend)
        assert (
            f"backend {name!r}: there is no module {missing!r}; it must be importable from"
            in sentence
        )


def test_a_missing_file_is_named_with_the_folder_that_was_searched() -> None:
    assert refusal("nowhere/own.py:kernel", UnknownBackend) == (
        f"backend 'nowhere/own.py:kernel': there is no file {Path('nowhere/own.py')};"
        f" a relative path starts from {Path.cwd()}"
    )


def test_a_missing_attribute_is_answered_with_the_public_ones_and_the_nearest(module: str) -> None:
    sentence = refusal(f"{module}:kernle", UnknownBackend)
    assert sentence.startswith("some_kernels: attribute 'kernle' is not known; known: ")
    assert sentence.endswith("did you mean 'kernel'?")
    assert "_private" not in sentence


# What is found and broken -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        (BROKEN_MODULE, "failed to load: RuntimeError: compile me first"),
        (
            NEEDY_MODULE,
            "failed to load: ModuleNotFoundError: No module named 'a_framework_that_nobody_has'",
        ),
        ("def kernel(:", "invalid syntax (broken_kernels.py, line 1)"),
        (
            "raise SystemExit('usage: broken_kernels')",
            "failed to load: SystemExit: usage: broken_kernels",
        ),
    ],
    ids=["raises", "misses a framework", "does not parse", "exits"],
)
def test_a_module_that_cannot_be_imported_is_a_broken_backend(
    text: str, ending: str, write: Write
) -> None:
    path = write("broken_kernels.py", text)
    for name in ("broken_kernels:kernel", f"{path}:kernel"):
        sentence = refusal(name, BrokenBackend)
        assert sentence.startswith(f"backend {name!r} failed to load: ")
        assert sentence.endswith(ending)


@pytest.mark.parametrize(
    ("attribute", "sentence"),
    [
        ("number", "is int without name, description, capabilities, layer, to_native, to_numpy;"),
        (
            "incomplete",
            "is Incomplete without capabilities, to_native, to_numpy; "
            "a backend has name, description,",
        ),
        ("boastful", "has capabilities of type dict; expected bn_spec.Capabilities"),
        ("spaced", "has the name 'two words'; allowed: letters, digits, '-', '_' and '.'"),
        ("numbered", "has the name 7; allowed: letters, digits, '-', '_' and '.'"),
        ("failing", "failed to load: RuntimeError: the driver is too old"),
        (
            "greedy",
            "failed to load: TypeError: greedy() missing 1 required positional argument: 'device'",
        ),
        ("undeclared", "failed to load: RuntimeError: no device to describe"),
    ],
)
def test_what_keeps_no_backends_contract_is_a_broken_backend(
    attribute: str, sentence: str, module: str
) -> None:
    assert f"backend '{module}:{attribute}' {sentence}" in refusal(
        f"{module}:{attribute}", BrokenBackend
    )


# Selections ---------------------------------------------------------------------------


def test_backends_are_selected_once_each_in_the_order_and_by_the_names_they_were_asked_for(
    module: str,
) -> None:
    selection = select([f"{module}:kernel", "reference", f"{module}:kernel"])
    assert [(name, backend.name) for name, backend in selection.backends.items()] == [
        (f"{module}:kernel", "kernel"),
        ("reference", "reference"),
    ]
    assert selection.unavailable == {}


def test_two_backends_of_one_name_are_refused(module: str) -> None:
    with pytest.raises(
        BrokenBackend, match="two backends are called reference; give each backend a name"
    ):
        select(["reference", f"{module}:impostor"])


def test_an_unavailable_backend_is_an_error_when_it_was_asked_for(
    install: Callable[[str], None],
) -> None:
    install("abacus = some_kernels:absent")
    for names in (["abacus"], ["reference", "abacus"], ["some_kernels:absent"], ["all", "abacus"]):
        with pytest.raises(UnavailableBackend, match="this machine has no abacus"):
            select(names)


def test_all_takes_every_registered_backend_and_tells_which_are_unavailable(
    install: Callable[[str], None],
) -> None:
    install("abacus = some_kernels:absent\nframe = some_kernels:made")
    selection = select(["all"])
    assert {"made", "reference"} <= {backend.name for backend in selection.backends.values()}
    assert selection.unavailable["abacus"] == "this machine has no abacus"


def test_all_may_be_joined_by_others(module: str) -> None:
    assert {"reference", "kernel"} <= {
        backend.name for backend in select(["all", f"{module}:kernel"]).backends.values()
    }


def test_by_default_all_other_backends_are_left_out_unmentioned_and_not_even_imported(
    install: Callable[[str], None],
) -> None:
    install("abacus = some_kernels:absent\nframe = some_kernels:made")
    selection = select()
    assert {*selection.backends, *selection.unavailable} == set(BY_DEFAULT)
    assert "some_kernels" not in sys.modules
    assert set(registered()) > set(BY_DEFAULT)


def test_by_default_a_machine_without_a_device_gets_the_reference_and_torchs_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = pytest.importorskip(
        "torch", reason="PyTorch is an extra; without it, see the next test"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    selection = select()
    assert [backend.name for backend in selection.backends.values()] == ["reference", "torch-cpu"]
    assert selection.unavailable == {"torch-cuda": "torch sees no CUDA device"}


def test_by_default_a_machine_without_torch_gets_the_reference_and_how_to_install_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "bn_spec.backend.adapters.torch", raising=False)
    selection = select()
    assert selection.backends == {"reference": reference}
    reason = "torch is not installed; install it with: pip install 'bn-spec[torch]'"
    assert selection.unavailable == dict.fromkeys(("torch-cpu", "torch-cuda"), reason)
