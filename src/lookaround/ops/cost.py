"""FLOPs and bytes of a call of the operator, two FLOPs per multiply-add."""

from dataclasses import dataclass

from lookaround.ops.call import Call


@dataclass(frozen=True)
class CallCost:
    """What one forward call costs.

    Attributes:
        paper_flops: as the paper counts, q·r taken in full: k² products of length head_dim per query.
        executed_flops: as executed, q·r factorised: 2·k products of length head_dim/2 per query.
        minimal_bytes: inputs read once and output written once.
    """

    paper_flops: int
    executed_flops: int
    minimal_bytes: int


def call_cost(call: Call) -> CallCost:
    """Count the cost of a call; softmax and border effects are left out, as the paper does.

    Source:
        The two counts are told apart in the tests, where every printed FLOP figure of the paper is met.
    """
    height, width = call.kernel_size
    window = height * width
    queries = call.batch * call.height * call.width * call.num_heads
    halves = [height] * call.has_row_embedding + [width] * call.has_column_embedding
    content = window * call.head_dim * call.has_key + window * call.value_dim
    position_in_full = window * call.head_dim * len(halves) // 2
    position_factorised = sum(halves) * call.head_dim // 2
    vectors = call.head_dim * (1 + call.has_key) + 2 * call.value_dim
    return CallCost(
        paper_flops=2 * queries * (content + position_in_full),
        executed_flops=2 * queries * (content + position_factorised),
        minimal_bytes=queries * vectors * call.dtype.itemsize,
    )


def backward_flops(call: Call) -> int:
    """Count the FLOPs of the backward pass as executed: logits and weights are computed again, not kept."""
    height, width = call.kernel_size
    queries = call.batch * call.height * call.width * call.num_heads
    halves = [height] * call.has_row_embedding + [width] * call.has_column_embedding
    # Of the key: logits again, gradients of query and key; of the value: of the weights and of the value.
    content = height * width * (3 * call.head_dim * call.has_key + 2 * call.value_dim)
    position = 3 * sum(halves) * call.head_dim // 2
    return 2 * queries * (content + position)
