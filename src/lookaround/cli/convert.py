"""`lookaround convert`: attention in the place of a network's convolutions."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from lookaround.nn import ConversionReport

HELP = "Put local attention in the place of convolutions, in a network of torchvision, timm or lookaround."
SHOWN = 5  # of the convolutions that stayed, in an error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of `lookaround convert`."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a name of torchvision, timm or lookaround; torchvision:NAME, timm:NAME or lookaround:NAME"
        " where several have it",
    )
    parser.add_argument(
        "--stages", type=_stages, default=[], metavar="N,…", help="only these stages, counted from 1: 3,4"
    )
    parser.add_argument(
        "--where", nargs="+", default=[], metavar="PATTERN", help="only modules of these names: 'layer4.*'"
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=["3x3"],
        metavar="KIND",
        help="what is replaced: 3x3 (default), 'grouped 3x3', 'depthwise *', …",
    )
    parser.add_argument("--kernel-size", type=int, default=7, metavar="N", help="the window (default 7)")
    parser.add_argument("--num-heads", type=int, default=8, metavar="N", help="heads (default 8)")
    parser.add_argument("--image-size", type=_size, metavar="N", help="count FLOPs: 224, or 224x320")
    parser.add_argument("--num-classes", type=int, metavar="N", help="size of the last layer")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--pretrained", action="store_true", help="begin with the weights of its package")
    source.add_argument("--weights", type=Path, metavar="FILE", help="begin with these (safetensors)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the new weights (default 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write weights and record there")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Convert, write, and print the report.

    Raises:
        UnknownNameError: there is no such network, or a pattern matches nothing.
        ArgumentError: an option has a value that cannot be used, or nothing was replaced.
        CheckpointError: the weights cannot be read or are of another network.
        DataError: pretrained weights cannot be had.
    """
    import torch

    from lookaround.integrations.converted import ConversionRecord, save_converted
    from lookaround.integrations.networks import find_network, make_network
    from lookaround.nn import replace_convolutions

    network = find_network(arguments.model)
    torch.manual_seed(arguments.seed)
    model = make_network(network, arguments.num_classes, pretrained=arguments.pretrained)
    if arguments.weights is not None:
        _load(model, arguments.weights)
    report = replace_convolutions(
        model,
        [*arguments.stages, *arguments.where] or None,
        kernel_size=arguments.kernel_size,
        num_heads=arguments.num_heads,
        kinds=arguments.kinds,
        image_size=arguments.image_size,
    )
    _check_replaced(report)
    if arguments.out is not None:
        record = ConversionRecord.of(str(network), report, arguments.num_classes)
        save_converted(model, arguments.out, record)
    facts = {
        "network": str(network),
        "also_in": list(network.others),
        "other_weights": _weights(arguments),
        "out": None if arguments.out is None else str(arguments.out),
    }
    print(json.dumps(facts | report.to_dict(), indent=2) if arguments.json else _describe(facts, report))
    return 0


def _weights(arguments: argparse.Namespace) -> str:
    """Say where the weights beside the attention's come from."""
    if arguments.weights is not None:
        return str(arguments.weights)
    return "pretrained" if arguments.pretrained else "random"


def _describe(facts: dict[str, Any], report: "ConversionReport") -> str:
    also = f" (also in {', '.join(facts['also_in'])})" if facts["also_in"] else ""
    lines = [f"{facts['network']}{also}, {facts['other_weights']} weights beside those of the attention"]
    lines.append(str(report))
    if facts["out"] is not None:
        lines.append(f"wrote {facts['out']}")
    return "\n".join(lines)


def _load(model: "nn.Module", path: Path) -> None:
    from lookaround.errors import CheckpointError, message
    from lookaround.models.checkpoint import misfits, read_tensors

    tensors = read_tensors("convert", path)
    lines = misfits(model, tensors)
    if lines:
        must = "the weights must be those of the model before it is converted"
        shown = [*lines[:SHOWN], f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else lines
        raise CheckpointError(message("convert", must, path, lines=shown))
    model.load_state_dict(tensors)


def _check_replaced(report: "ConversionReport") -> None:
    from lookaround.errors import ArgumentError, message

    if report.replaced:
        return
    spatial = [row for row in report.left if not row.convolution.startswith("1x1")]
    lines = [f"{row.names[0]} ({row.convolution}): {'; '.join(row.reasons)}" for row in spatial[:SHOWN]]
    hint = "change --kinds, --num-heads, --stages or --where."
    must = "some convolution must give way"
    got = f"none of {len(report.left)}"
    raise ArgumentError(message("convert", must, got, lines=lines, hint=hint))


def _stages(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        must = f"stages must be numbers with commas between them, as in 3,4; got {text!r}"
        raise argparse.ArgumentTypeError(must) from None


def _size(text: str) -> int | tuple[int, int]:
    try:
        sides = [int(part) for part in text.split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        must = f"an image size must be N or HEIGHTxWIDTH; got {text!r}"
        raise argparse.ArgumentTypeError(must)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
