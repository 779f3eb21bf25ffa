"""``bn-spec vectors export``: files for other languages that tell right kernels from wrong ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner, Result

from bn_spec import BatchNorm2d
from bn_spec.case.dtypes import Array, format_named
from bn_spec.cli import main
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.reference import Extended
from bn_spec.suite.pinned import pinned
from bn_spec.tools.vectors import Call, Vector, claims_of, expected_of, vectors
from tests.needs import missing
from tests.process import REPOSITORY, run

EXAMPLE = REPOSITORY / "examples" / "vectors"


def export(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["vectors", "export", str(folder), *options])


def exported(folder: Path, *options: str) -> dict[str, Any]:
    done = export(folder, *options)
    assert done.exit_code == 0, done.output
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return manifest


def safetensors(path: Path) -> dict[str, Array]:
    """Read a safetensors file exactly as the specification of the format says."""
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "U8": "u1"}
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    assert header.pop("__metadata__")["format"] == "bn-spec vectors"
    # Nothing follows the last array.
    assert max(max(entry["data_offsets"]) for entry in header.values()) == len(data)
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert begin % np.dtype(kinds[entry["dtype"]]).itemsize == 0
        arrays[name] = np.frombuffer(data[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
    return arrays


def laid_out(arrays: Any, entry: dict[str, Any]) -> Array:
    """Return a tensor of the manifest with its shape and strides."""
    flat = arrays[entry["array"]].view(format_named(entry["dtype"]).dtype)
    strides = [stride * flat.itemsize for stride in entry["strides"]]
    return np.lib.stride_tricks.as_strided(flat, entry["shape"], strides)


def discrepancies(manifest: dict[str, Any], arrays: Any) -> Iterator[str]:
    """Play the forwards of all vectors on the reference, and yield each tensor that is wrong."""
    for vector in manifest["vectors"]:
        for call in vector["calls"]:
            if call["call"] != "forward":
                continue
            tensors = {name: laid_out(arrays, entry) for name, entry in call["tensors"].items()}
            layer = BatchNorm2d(
                vector["num_features"],
                call["eps"],
                call["momentum"],
                vector["affine"],
                vector["track_running_stats"],
                dtype=vector["dtype"],
            )
            x, counter = tensors.pop("x"), call["num_batches_tracked"]
            if counter:
                tensors["num_batches_tracked"] = np.array(counter[0])
            layer.load_state_dict(tensors)
            layer.train(call["training"])
            returned = {"output": layer(x)} | layer.state_dict()
            if counter:
                assert returned["num_batches_tracked"] == counter[1]
            for name, expected in call["expected"].items():
                value, bound, judged = (
                    arrays[expected[part]].reshape(expected["shape"])
                    for part in ("value", "bound", "judged")
                )
                assert judged.any() or name != "output"
                with np.errstate(invalid="ignore"):
                    right = np.abs(returned[name].astype(np.float64) - value) <= bound
                if not right[judged == 1].all():
                    yield f"{vector['name']}: {name}"


@pytest.mark.parametrize(
    ("dtype", "form"), [("float64", "safetensors"), ("mixed_bfloat16", "npz"), ("bfloat16", "npz")]
)
def test_a_right_layer_gives_what_is_expected_in_any_dtype_and_container(
    dtype: str, form: str, tmp_path: Path
) -> None:
    options = (
        "--dtype",
        dtype,
        "--format",
        form,
        "--count",
        "2",
        "--requirement",
        "[ER][VU][LN]-0[1-4]",
    )
    manifest = exported(tmp_path / "v", *options)
    path = tmp_path / "v" / manifest["arrays"]
    arrays = safetensors(path) if form == "safetensors" else np.load(path, allow_pickle=False)
    assert {vector["requirement"] for vector in manifest["vectors"]} >= {
        "RUN-01",
        "RUN-03",
        "EVL-01",
    }
    assert not list(discrepancies(manifest, arrays))
    for vector in manifest["vectors"]:
        vector["calls"] = [
            c | {"momentum": 0.75}
            for c in vector["calls"]
            if c["training"] and c["momentum"] != 0.75
        ]
    assert any("running_mean" in found for found in discrepancies(manifest, arrays))


def test_strides_and_bits_of_every_tensor_survive(tmp_path: Path) -> None:
    manifest = exported(
        tmp_path / "v", "--dtype", "bfloat16", "--requirement", "GRD-21", "--count", "4"
    )
    arrays = safetensors(tmp_path / "v" / "arrays.safetensors")
    drawn = list(vectors(claims_of(("bfloat16",), "welford"), "GRD-21", 4))
    assert [vector["name"] for vector in manifest["vectors"]] == [vector.name for vector in drawn]
    tensors = 0
    for call, entry in zip(
        _calls(drawn), (c for v in manifest["vectors"] for c in v["calls"]), strict=True
    ):
        for name, a in call.tensors.items():
            read = laid_out(arrays, entry["tensors"][name])
            assert (read.dtype, read.shape, read.strides) == (a.dtype, a.shape, a.strides)
            assert read.tobytes() == a.tobytes()
            tensors += not a.flags.c_contiguous
    assert tensors
    assert {call.kind for call in _calls(drawn)} == {"forward", "backward"}


def _calls(drawn: list[Vector]) -> Iterator[Call]:
    return (call for vector in drawn for call in vector.calls)


@pytest.mark.parametrize("form", ["safetensors", "npz"])
def test_the_seed_decides_every_byte(form: str, tmp_path: Path) -> None:
    options = ("--requirement", "RUN-03", "--format", form)
    for name, seed in (("one", "1"), ("same", "1"), ("other", "2")):
        exported(tmp_path / name, *options, "--seed", seed)
    one, same, other = (
        (tmp_path / name / f"arrays.{form}").read_bytes() for name in ("one", "same", "other")
    )
    assert one == same
    assert one != other


def test_without_a_count_the_pinned_cases_are_left_which_show_the_faults_of_the_catalogue() -> None:
    found = [
        vector.requirement.id for vector in vectors(claims_of(("float32",), "welford"), "RUN-*", 0)
    ]
    known = {p.requirement for p in pinned().values() if p.case.config.dtype == "float32"}
    assert found
    assert set(found) == {name for name in known if name.startswith("RUN")}


def test_a_bound_grows_by_what_the_rounding_of_the_value_costs_and_never_shrinks() -> None:
    value = Extended(np.array([1.0, 1.0, np.nan]), np.array([0.0, -(2.0**-60), 0.0]))
    judged = expected_of(Bounded(value, np.array([0.0, 2.0**-50, np.inf])))
    assert judged.bound[0] == 0
    assert 2.0**-50 + 2.0**-60 <= judged.bound[1] <= (2.0**-50 + 2.0**-60) * (1 + 2.0**-50)
    assert judged.judged.tolist() == [True, True, False]
    assert np.isfinite(judged.value).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--requirement", "XYZ-*"), "'XYZ-*' matches no requirement; chapters: CFG-*, TRN-*"),
        (("--dtype", "float8"), "Invalid value for '--dtype'"),
        (("--format", "pickle"), "Invalid value for '--format'"),
    ],
)
def test_a_wrong_option_writes_nothing(
    options: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    done = export(tmp_path / "v", *options)
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_there_is_stays_as_it_is(tmp_path: Path) -> None:
    done = export(tmp_path, "--requirement", "RUN-03")
    assert done.exit_code == 2
    assert "exists, and is not overwritten" in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())


def test_the_reader_in_cpp_tells_a_right_kernel_from_a_wrong_one(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        missing("there is no C++ compiler called c++")
    exported(tmp_path / "v", "--requirement", "[TREGS][RUVHT]*-0[1-8]", "--count", "1")
    for flags, code, sentence in (((), 0, "0 of "), (("-DFAULT",), 1, "running_var[")):
        call = ("c++", "-std=c++11", *flags, "-o", tmp_path / "check", EXAMPLE / "check.cpp")
        assert run(*call, cwd=tmp_path).returncode == 0
        done = run(tmp_path / "check", "v", cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        assert sentence in done.stdout
    for name, error in (
        ("manifest.txt", "manifest.txt ends too early"),
        ("arrays.safetensors", "cannot read"),
    ):
        shutil.copytree(tmp_path / "v", tmp_path / name)
        with (tmp_path / name / name).open("r+b") as file:
            file.truncate((tmp_path / "v" / name).stat().st_size // 3)
        done = run(tmp_path / "check", name, cwd=tmp_path)
        assert (done.returncode, error in done.stdout) == (2, True)
    assert run(tmp_path / "check", "nowhere", cwd=tmp_path).returncode == 2
