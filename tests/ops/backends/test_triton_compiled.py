"""Every entry of the table of tiles compiles for sm_80 and sm_90, and fits: registers, spills, shared memory.

No GPU is needed. What is slow on a GPU shows here as registers that were spilled.
"""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lookaround.ops.backends import triton_configs

SCRIPT = Path(__file__).with_name("compile_triton.py")
EACH = itertools.product((80, 90), triton_configs.TABLE)
# Half types: whatever the table holds, at a window of 7x7 with tables, as the networks call it.
TABLE = [
    {"capability": capability, "kind": kind, "head_dim": dim, "dtype": "bfloat16", "kernel_size": 7}
    for capability, (kind, dim) in EACH
]
KINDS = ("forward", "query", "key")
OTHERS = [
    {"kind": kind, "capability": 90, "dtype": "bfloat16", "head_dim": 32, "kernel_size": 7} | change
    for kind, change in (
        ("forward", {"padding": True, "kernel_size": 15}),
        ("forward", {"border": "zeros", "key": False, "dtype": "float16", "kernel_size": 3}),
        ("forward", {"tables": False, "head_dim": 24, "value_dim": 40, "kernel_size": 1}),
        ("query", {"padding": True, "kernel_size": 15, "dtype": "float16"}),
        ("query", {"border": "zeros", "key": False, "kernel_size": 3}),
        ("key", {"tables": False, "head_dim": 24, "value_dim": 40, "kernel_size": 9}),
        ("key", {"padding": True, "key": False, "dtype": "float16", "kernel_size": 15}),
        *((kind, {"dtype": "float32", "head_dim": 8}) for kind in KINDS),
        *((kind, {"dtype": "float32", "head_dim": 128}) for kind in KINDS),
    )
]
# Bytes of registers that may be spilled, by the longest vector. float32 multiplies without the tensor
# cores, and vectors beyond 64 are kept for completeness: both are as fast as they are.
SPILLED_BYTES = {16: 272, 32: 256, 64: 288, 128: 960}
SPILLED_FLOAT32 = 1600


def compiled(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compile in a process of its own and read what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, SCRIPT, json.dumps(cases)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("cases", [TABLE, OTHERS], ids=["table", "others"])
def test_kernels_compile_without_a_gpu_and_fit(cases: list[dict[str, Any]]) -> None:
    results = compiled(cases)
    assert len(results) == len(cases)
    for result in results:
        assert result["registers"] <= (result["limit"] or 255), result
        assert result["shared_bytes"] <= triton_configs.SHARED_MEMORY_BYTES, result
        if result["dtype"] == "float32":
            assert result["spilled_bytes"] <= SPILLED_FLOAT32, result
            assert not result["uses_tensor_cores"], result  # they would round the factors
        else:
            vector = max(result["head_dim"], result.get("value_dim", 0))
            bucket = next(bucket for bucket in (16, 32, 64, 128) if vector <= bucket)
            wide = result["kernel_size"] > 9  # a line of keys is then 32 wide, and so are both tables
            assert result["spilled_bytes"] <= SPILLED_BYTES[bucket] * (1 + wide), result
            assert result["uses_tensor_cores"], result


def test_the_table_has_an_entry_for_every_vector() -> None:
    for kind, vector, kernel_size in itertools.product(KINDS, range(1, 129), ((1, 1), (7, 7), (3, 121))):
        for itemsize in (2, 4):
            tiles = triton_configs.choose_tiles(kind, kernel_size, vector, itemsize)
            across = triton_configs.next_power_of_two(tiles.block_x + kernel_size[1] - 1)
            assert tiles.lines * across >= 16  # what a product on the tensor cores sums over
            assert (
                4 * tiles.strips * tiles.lines * across * vector * itemsize <= 99 * 1024 or tiles.strips == 1
            )
