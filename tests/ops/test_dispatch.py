"""Which backend serves, and the one answer that choosing, listing and refusing share."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from lookaround.errors import BackendError, UnknownBackendError, UnsupportedCallError
from lookaround.ops import dispatch, explain_backends, list_backends, local_attention
from lookaround.ops.backends import BACKENDS
from strategies import Case


@pytest.fixture
def crippled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every backend reasons against every call, the last one excepted."""
    refusing = [
        replace(b, reasons_against=lambda call: ["no such hardware", "too wide"]) for b in BACKENDS[:-1]
    ]
    monkeypatch.setattr(dispatch, "BACKENDS", (*refusing, BACKENDS[-1]))


def call(backend: str = "auto") -> torch.Tensor:
    case = Case()
    return local_attention(*case.tensors(), **case.options, backend=backend)


def explained() -> dict[str, list[str]]:
    case = Case()
    return explain_backends(*case.tensors(), **case.options)


def test_the_table_names_each_backend_once_and_ends_with_the_reference() -> None:
    names = list_backends()
    assert len(set(names)) == len(names)
    assert {"reference", "blocked"} <= set(names)
    assert names[-1] == "reference"
    assert "auto" not in names


def test_a_backend_is_frozen_and_says_what_it_is() -> None:
    for backend in BACKENDS:
        assert backend.summary
        with pytest.raises(FrozenInstanceError):
            backend.name = "other"  # type: ignore[misc]


def test_unknown_backends_list_the_known_and_guess() -> None:
    with pytest.raises(
        UnknownBackendError, match=r"backend must be known; got 'block'.*\n.*did you mean 'blocked'\?"
    ):
        call("block")
    with pytest.raises(UnknownBackendError, match=r"Known: auto, .*blocked, .*reference"):
        call("cudnn")
    assert issubclass(UnknownBackendError, BackendError)


def test_explain_names_every_backend_in_the_order_of_choice() -> None:
    assert list(explained()) == list_backends()
    assert explained()["reference"] == []
    assert explained()["blocked"] == []


@pytest.mark.usefixtures("crippled")
def test_auto_takes_the_first_without_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    served = []
    last = replace(BACKENDS[-1], run=lambda inputs, call: served.append(call) or inputs.value)
    monkeypatch.setattr(dispatch, "BACKENDS", (*dispatch.BACKENDS[:-1], last))
    call()
    assert len(served) == 1
    assert [bool(reasons) for reasons in explained().values()] == [True] * (len(BACKENDS) - 1) + [False]


@pytest.mark.usefixtures("crippled")
def test_a_named_backend_refuses_with_all_its_reasons() -> None:
    match = (
        r"'blocked' must be able to run this call; got 2 reasons against it\.\n  no such hardware\n  too wide"
    )
    with pytest.raises(UnsupportedCallError, match=match):
        call("blocked")


def test_auto_refuses_with_the_reasons_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tuple(replace(b, reasons_against=lambda call: ["tired"]) for b in BACKENDS)
    monkeypatch.setattr(dispatch, "BACKENDS", refusing)
    with pytest.raises(UnsupportedCallError, match=r"blocked: tired\n  reference: tired\nhint: "):
        call()


def test_a_backend_that_breaks_is_an_error_and_no_silent_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(inputs: object, call: object) -> torch.Tensor:
        raise RuntimeError("the kernel broke")

    first = replace(BACKENDS[0], run=broken, reasons_against=lambda call: [])
    monkeypatch.setattr(dispatch, "BACKENDS", (first, *BACKENDS[1:]))
    with pytest.raises(RuntimeError, match="the kernel broke"):
        call()
