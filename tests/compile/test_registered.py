"""Whatever lookaround registers with torch.library passes torch's own checks."""

import pytest
import torch

import lookaround.ops  # registers what there is to register

REGISTERED = sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("lookaround::"))


def test_only_known_namespaces_are_used() -> None:
    assert lookaround.ops.list_backends()
    assert all(name.count("::") == 1 for name in REGISTERED)


@pytest.mark.parametrize("name", REGISTERED)
def test_registered_operators_have_a_fake_and_take_plain_tensors(name: str) -> None:
    namespace, _, rest = name.partition("::")
    operator, _, overload = rest.partition(".")
    registered = getattr(getattr(getattr(torch.ops, namespace), operator), overload or "default")
    assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "Meta")
    assert all("List" not in str(argument.type) for argument in registered._schema.arguments)
