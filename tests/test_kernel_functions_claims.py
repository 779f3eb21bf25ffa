"""A backend of kernel functions claims what its functions can do."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bn_spec import Capabilities, Config, ConfigError, kernel_backend
from bn_spec.case.dtypes import Array
from tests.kernels import WRT, X, backward, forward_inference, forward_training, search_of


def test_the_backend_has_the_name_and_description_that_were_given() -> None:
    backend = kernel_backend("mine", forward_training, description="a kernel of my own")
    assert (backend.name, backend.description) == ("mine", "a kernel of my own")


STORED = Capabilities(checkpoints=True, live_attributes=True)
"""What the helper claims for any kernels: it keeps their tensors and their attributes."""


@pytest.mark.parametrize(("inference", "claimed"), [(None, False), (forward_inference, True)])
def test_inference_is_claimed_just_when_there_is_a_kernel_for_it(
    inference: Callable[..., Array] | None, claimed: bool
) -> None:
    backend = kernel_backend("mine", forward_training, inference)
    assert backend.capabilities == replace(STORED, inference=claimed)


def test_without_forward_inference_an_eval_forward_says_so() -> None:
    layer = kernel_backend("mine", forward_training).layer(Config(2), None)
    layer.train(False)
    with pytest.raises(NotImplementedError, match="mine has no forward_inference"):
        layer.forward(X)


@pytest.mark.parametrize("given_backward", [None, backward])
def test_gradients_are_claimed_just_when_there_is_a_kernel_for_them(
    given_backward: Callable[..., Any] | None,
) -> None:
    backend = kernel_backend("mine", forward_training, forward_inference, given_backward)
    assert backend.capabilities == replace(STORED, gradients=given_backward is not None)


def test_without_a_backward_the_layer_says_so() -> None:
    layer: Any = kernel_backend("mine", forward_training).layer(Config(2), None)
    _, record = layer.record(X, WRT)
    with pytest.raises(NotImplementedError, match="mine has no backward"):
        layer.backward(record, X)


def test_what_a_kernel_does_not_claim_of_gradients_is_not_asked() -> None:
    silent = replace(Capabilities(), inference=False)
    backend = kernel_backend("mine", forward_training, capabilities=silent)
    assert search_of("GRD-01", backend).cell.not_claimed == "mine does not claim gradients"
    differentiable = kernel_backend("mine", forward_training, None, backward)
    assert search_of("GRD-01", differentiable).cell.not_claimed == ""
    assert search_of("GRD-04", differentiable).cell.not_claimed == "mine does not claim inference"
    assert (
        search_of("GRD-22", differentiable).cell.not_claimed
        == "mine does not claim gradient_layout"
    )
    assert (
        search_of("GRD-23", differentiable).cell.not_claimed
        == "mine does not claim double_backward"
    )


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        (
            {"gradients": True},
            "mine claims gradients but has no backward;"
            " pass backward=..., or claim gradients=False",
        ),
        (
            {"double_backward": ("float32",)},
            "mine claims a double backward, which kernel functions cannot have;"
            " write a layer of your own (bn_spec.Layer), or claim double_backward=()",
        ),
    ],
)
def test_a_claim_of_gradients_without_a_kernel_for_them_is_refused(
    claims: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        kernel_backend(
            "mine", forward_training, forward_inference, capabilities=Capabilities(**claims)
        )
    assert str(refused.value) == sentence


@pytest.mark.parametrize("given", [None, Capabilities(inference=False)])
def test_checkpoints_and_attributes_are_claimed_since_the_helper_keeps_them(
    given: Capabilities | None,
) -> None:
    backend = kernel_backend("mine", forward_training, capabilities=given)
    assert {
        search_of(requirement, backend).cell.not_claimed
        for requirement in ("STA-01", "STA-07", "ERR-05")
    } == {""}


def test_claims_that_were_given_are_kept() -> None:
    claims = Capabilities(dtypes=("float64",), grade="textbook", inference=False, threads=True)
    backend = kernel_backend("mine", forward_training, capabilities=claims)
    assert backend.capabilities == replace(claims, checkpoints=True, live_attributes=True)


def test_a_claim_of_inference_without_a_kernel_for_it_is_refused() -> None:
    sentence = (
        "mine claims inference but has no forward_inference; pass forward_inference=..., or claim"
    )
    with pytest.raises(ConfigError, match=sentence):
        kernel_backend("mine", forward_training, capabilities=Capabilities())


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        (
            {"dtypes": ("float23",)},
            "dtype 'float23' is not known; known: bfloat16, float16, float32, float64, "
            "mixed_bfloat16, mixed_float16; did you mean 'float32'?",
        ),
        (
            {"double_backward": ("float64",)},
            "dtype with a double backward 'float64' is not known; known: float32; "
            "did you mean 'float32'?",
        ),
        (
            {"layouts": ("channel_last",)},
            "layout 'channel_last' is not known; known: ambiguous, channels_last,",
        ),
        (
            {"grade": "two pass"},
            "grade 'two pass' is not known; known: textbook, two-pass, welford; did you mean",
        ),
    ],
)
def test_a_claim_that_is_not_known_is_refused_with_the_nearest(
    claim: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Capabilities(**claim)
    assert str(refused.value).startswith(sentence)


def test_a_function_of_other_arguments_is_refused_before_it_is_called() -> None:
    def forward_training(
        x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float
    ) -> Any: ...

    with pytest.raises(ConfigError) as refused:
        kernel_backend("mine", forward_training)
    said = str(refused.value)
    assert "mine: forward_training takes (x: Any, weight: Any, bias: Any, mean: Any" in said
    assert (
        "it is called with x by position and with "
        "weight, bias, running_mean, running_var, momentum, eps by name" in said
    )


def test_a_function_may_take_whatever_it_is_given_or_have_no_signature() -> None:
    kernel_backend("mine", lambda x, **_: x)
    kernel_backend("mine", min)
