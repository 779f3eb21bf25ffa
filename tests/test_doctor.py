"""``bn-spec doctor``: what a backend can do, what it wrongly claims, and a declaration to paste."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import bn_spec
from bn_spec import Capabilities, Dialect
from bn_spec.backend.declaration import declaration
from bn_spec.backend.registry import load
from bn_spec.case.dtypes import DTYPES
from bn_spec.cli import main
from bn_spec.specimens import SPECIMENS
from bn_spec.tools.doctor import ABSENT, BETTER, OK, PROBES, PROBLEM, Look, Patient, examination
from tests.process import REPOSITORY, strange
from tests.process import bn_spec as command


def doctor(name: str) -> Result:
    return CliRunner().invoke(main, ["doctor", name])


def lines(printed: str) -> list[str]:
    return [" ".join(line.split()) for line in printed.splitlines()]


def pasted(printed: str) -> Capabilities:
    """Return what Python makes of the declaration at the end."""
    names = vars(bn_spec) | {"Capabilities": Capabilities}
    found: Capabilities = eval(printed[printed.index("  Capabilities(") :].strip(), names)
    return found


def looked(patient: Patient, *probes: str) -> dict[str, list[Look]]:
    """Let some of the probes look, in their order."""
    return {name: list(patient.looked_at(PROBES[name])) for name in probes}


def test_a_backend_that_claims_too_much_in_one_place_and_too_little_in_others_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "bn_spec.tools.doctor.MORE_EXAMPLES", 8
    )  # as many as show all that is looked for here
    done = doctor(strange("overclaiming"))
    assert done.exit_code == 1
    told = lines(done.output)
    assert "forward ok float32: output and running statistics of a tiny batch are right" in told
    assert "grade could claim float32: two-pass, where textbook is claimed" in told
    assert (
        "without affine PROBLEM affine_off: CFG-05: raised TypeError: a layer has parameters"
        in told
    )
    assert "checkpoints could claim checkpoints" in told
    assert "layout of the output ok output_layout" in told
    assert "1 problem. A few examples suggest this declaration, for you to decide on:" in told
    assert 'grade="two-pass", # declared: "textbook"' in told
    claims = pasted(done.output)
    assert (claims.grade, claims.affine_off, claims.output_layout) == ("two-pass", False, True)
    assert claims.gradients
    assert claims.checkpoints
    assert set(claims.dtypes) == set(DTYPES)
    assert not claims.threads  # examples cannot prove it


def test_what_is_not_finished_is_told_where_it_stands() -> None:
    done = doctor(strange("unfinished"))
    assert done.exit_code == 1
    assert "forward PROBLEM float32: raised NotImplementedError: no kernel yet" in lines(
        done.output
    )
    assert done.output.endswith(
        "No forward returns an output yet. The other probes run once one does.\n"
    )
    assert "grade" not in done.output


def test_a_state_that_cannot_be_read_is_told() -> None:
    done = doctor(strange("stateless"))
    assert done.exit_code == 1
    assert "state PROBLEM float32: the layer's state is dict; expected bn_spec.State" in lines(
        done.output
    )


def test_what_does_not_load_is_told_with_the_nearest_name() -> None:
    done = doctor("referense")
    assert done.exit_code == 2
    assert "loads PROBLEM backend 'referense' is not known;" in " ".join(done.output.split())
    assert "did you mean 'reference'?" in " ".join(done.output.split())


def test_who_takes_the_process_along_has_been_named_before() -> None:
    done = command("doctor", strange("crashing"), cwd=REPOSITORY)
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1].strip() == "forward"


@pytest.mark.parametrize(
    ("specimen", "claims", "probe", "verdict", "proposed"),
    [
        ("runvar-bias", {}, "dialect", PROBLEM, {"dialect": Dialect(running_var="biased")}),
        ("textbook", {"grade": "welford"}, "grade", PROBLEM, {"grade": "textbook"}),
        ("welford", {"grade": "welford"}, "grade", OK, {"grade": "welford"}),
        ("subnormals-flushed", {}, "subnormal numbers", PROBLEM, {"subnormals": False}),
        ("wide-sums-claimed", {}, "summation", PROBLEM, {"summation": "any order"}),
        ("folded-without-eps", {}, "folding", PROBLEM, {"folding": False}),
    ],
)
def test_a_wrong_claim_is_found_and_what_is_so_proposed(
    specimen: str, claims: dict[str, Any], probe: str, verdict: str, proposed: dict[str, Any]
) -> None:
    known = SPECIMENS[specimen]
    first = known.capabilities.dtypes[:1]
    subject = replace(known, capabilities=replace(known.capabilities, dtypes=first, **claims))
    patient = Patient(subject, specimen)
    look = next(
        look
        for look in looked(patient, "eval mode", probe)[probe]
        if look.verdict != OK or verdict == OK
    )
    assert (look.verdict, dict(look.claims)) == (verdict, proposed)
    assert verdict == OK or look.todo


@pytest.mark.parametrize(
    ("specimen", "conventions"),
    [
        ("runvar-bias", ("running_var",)),
        ("another-dialect", ("running_var", "single_value")),
        ("averages-from-the-first-batch", ("averages",)),
        ("debiased-averages", ("running_var", "averages")),
        ("running-statistics-normalise", ("running_var", "averages", "training_output")),
        ("promoted-output", ("mixed_output",)),
    ],
)
def test_a_dialect_that_nobody_declared_is_recognised_and_spoils_nothing_else(
    specimen: str, conventions: tuple[str, ...]
) -> None:
    known = SPECIMENS[specimen]
    spoken = (
        replace(known.capabilities.dialect, running_var="biased")
        if not known.sound
        else known.capabilities.dialect
    )
    patient = Patient(
        replace(known, capabilities=replace(known.capabilities, dialect=Dialect())), specimen
    )
    said, *others = looked(patient, "dialect", "layouts", "without tracking").values()
    wrong = [look for look in said if look.verdict == PROBLEM]
    assert {
        name
        for look in wrong
        for name in conventions
        if f"{name}: {getattr(spoken, name)}" in look.text
    } == {*conventions}
    assert sum(look.text.count("is claimed") for look in wrong) == len(conventions)
    recognised = {name: getattr(spoken, name) for name in conventions}
    assert patient.proposed.dialect == Dialect(**recognised)
    assert {look.verdict for looks in others for look in looks} == {OK}


def test_what_departs_from_the_mode_of_the_process_is_told() -> None:
    patient = Patient(SPECIMENS["rounding-mode-left-changed"], "x")
    (look,) = looked(patient, "floating-point mode")["floating-point mode"]
    assert look.verdict == PROBLEM


def test_what_a_backend_cannot_be_asked_is_not_held_against_it() -> None:
    patient = Patient(load(strange("no_inference")), "x")
    assert [look.verdict for look in looked(patient, "threads", "products")["threads"]] == [ABSENT]
    (folding,) = looked(patient, "folding")["folding"]
    assert folding.verdict == ABSENT
    assert "does not claim inference" in folding.text


def test_what_is_not_there_in_eval_mode_is_looked_at_in_training() -> None:
    patient = Patient(load(strange("no_inference")), "x")
    (gradients,) = looked(patient, "gradients")["gradients"]
    assert (gradients.verdict, gradients.claims) == (BETTER, {"gradients": True})


def test_the_reference_has_no_problem() -> None:
    subject = load("reference")
    patient = Patient(subject, "reference")
    names = (
        "state",
        "forward",
        "eval mode",
        "floating-point mode",
        "dialect",
        "other dtypes",
        "gradients",
        "threads",
    )
    looks = [look for seen in looked(patient, *names).values() for look in seen]
    assert {look.verdict for look in looks} == {OK}


def test_a_probe_that_raises_ends_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(_: Patient) -> Any:
        raise RuntimeError("odd")

    monkeypatch.setattr("bn_spec.tools.doctor.PROBES", {"one": raising, "two": PROBES["state"]})
    seen = {
        name: list(looks) for name, looks in examination(Patient(load("reference"), "reference"))
    }
    assert [look.text for look in seen["one"]] == ["raised RuntimeError: odd"]
    assert seen["two"][0].verdict == OK


def test_a_declaration_reads_as_python_and_marks_what_departs() -> None:
    declared = Capabilities(gradients=True, dialect=Dialect(eps_range=(1e-5, float("inf"))))
    proposed = replace(declared, dtypes=("float64",), gradients=False, layouts=("contiguous",))
    text = "\n".join(declaration(proposed, declared))
    assert eval(text, {"Capabilities": Capabilities, "Dialect": Dialect}) == proposed
    assert '    dtypes=("float64",),  # declared: ("float32",)' in text
    assert "    gradients=False,  # declared: True" in text
    assert "grade" not in text
    assert BETTER not in text
