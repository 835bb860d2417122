"""Compile GPU kernels ahead of time, without a GPU; print what the compiler says of each as lines of JSON.

Run in a process of its own: Triton interprets instead where a test run asks for that.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lookaround.ops.backends import triton_launch
from lookaround.ops.backends.triton_launch import Gradients, Launch, Options
from lookaround.ops.call import Inputs

POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.bool: "*i1",
}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def plan(case: dict[str, Any]) -> Launch:
    """Prepare a launch for tensors that have no memory: the maps of one projection, 56x56 pixels."""
    dtype, size = getattr(torch, case["dtype"]), case["kernel_size"]
    dim, value_dim = case["head_dim"], case.get("value_dim", case["head_dim"])

    def empty(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    query, key, value = empty(128, 56, 56, 3, 8, dim).unbind(3)
    if value_dim != dim:
        value = empty(128, 56, 56, 8, value_dim)
    tables = (empty(size, dim // 2), empty(size, dim // 2)) if case.get("tables", True) else (None, None)
    padding = empty(128, 56, 56, dtype=torch.bool) if case.get("padding") else None
    inputs = Inputs(query, key if case.get("key", True) else None, value, *tables, padding)
    options = Options((size, size), (1, 1), 1.0, case.get("border", "mask"))
    out, logsumexp = empty(*value.shape), empty(128, 8, 56, 56, dtype=torch.float32)
    if case["kind"] == "forward":
        return triton_launch.plan_forward(inputs, options, out, logsumexp)
    if case["kind"] == "query":
        parts = triton_launch._table_parts(inputs, options)
        return triton_launch.plan_query(inputs, options, (out, out, logsumexp, logsumexp), query, parts)
    gradients = Gradients(query, inputs.key, value)
    return triton_launch.plan_key(inputs, options, (out, logsumexp, logsumexp), gradients)


def source(launch: Launch) -> ASTSource:
    """Say what Triton would find out from the arguments of a call."""
    signature, constants, attributes = {}, {}, {}
    values = {**launch.tensors, **launch.numbers, **launch.constants}
    for place, parameter in enumerate(launch.kernel.params):
        name, value = parameter.name, values[parameter.name]
        specialized = isinstance(value, int) and value == 1 and not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or specialized:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name], attributes[(place,)] = POINTERS[value.dtype], [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    return ASTSource(launch.kernel, signature, constants, attributes)


def resources(cubin: bytes) -> dict[str, int]:
    """Read registers and stack (where registers are spilled to) of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        listed = subprocess.run(
            [CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    words = dict(
        word.split(":") for word in listed.stdout.split() if word.count(":") == 1 and word[-1] != ":"
    )
    return {"registers": int(words["REG"]), "spilled_bytes": int(words["STACK"])}


def main() -> None:
    """Compile the cases that stand on the command line as JSON."""
    warnings.simplefilter("ignore")
    for case in json.loads(sys.argv[1]):
        launch = plan(case)
        target = GPUTarget("cuda", case["capability"], 32)
        compiled = triton.compile(source(launch), target=target, options=launch.compiler_options())
        found = resources(compiled.asm["cubin"]) | {
            "shared_bytes": compiled.metadata.shared,
            "uses_tensor_cores": "mma.sync" in compiled.asm["ptx"] or "wgmma" in compiled.asm["ptx"],
            "limit": launch.tiles.registers,
        }
        print(json.dumps(case | found), flush=True)


if __name__ == "__main__":
    main()
