"""`lookaround info`: versions, hardware, and every operator backend with its reasons."""

import argparse
import json
from typing import Any

HELP = "Versions, hardware, and every operator backend with the reasons why it cannot run."
TYPICAL = "8 images, 56x56 pixels, 8 heads of 8 channels, 7x7 window, float32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found."""
    from lookaround.training.environment import describe_environment

    facts = describe_environment() | {"typical_call": TYPICAL, "backends": backend_reasons()}
    print(json.dumps(facts, indent=2) if arguments.json else describe(facts))
    return 0


def backend_reasons() -> dict[str, dict[str, list[str]]]:
    """Reasons against every backend for a typical call, by device."""
    import torch

    from lookaround.ops import explain_backends

    reasons = {}
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        pixels = torch.zeros(8, 56, 56, 8, 8, device=device)
        table = torch.zeros(7, 4, device=device)
        reasons[device] = explain_backends(pixels, pixels, pixels, table, table, kernel_size=7)
    return reasons


def describe(facts: dict[str, Any]) -> str:
    """The facts as a text to read."""
    lines = [f"{name:<12} {version or 'absent'}" for name, version in facts["versions"].items()]
    lines[0] += f"  ({facts['commit']})" if facts["commit"] else ""
    lines.append(f"{'python':<12} {facts['python']}  ({facts['platform']})")
    lines += ["", *_describe_hardware(facts), ""]
    lines.append(f"backends of local_attention, in order of choice, for {facts['typical_call']}:")
    for device, reasons in facts["backends"].items():
        chosen = next((name for name, against in reasons.items() if not against), None)
        for name, against in reasons.items():
            verdict = (
                ("chosen" if name == chosen else "can run") if not against else "no: " + "; ".join(against)
            )
            lines.append(f"  {device:<5} {name:<10} {verdict}")
    return "\n".join(lines)


def _describe_hardware(facts: dict[str, Any]) -> list[str]:
    cpu = facts["cpu"]
    memory = "" if cpu["memory_bytes"] is None else f", {cpu['memory_bytes'] / 2**30:.1f} GiB memory"
    sets = " ".join(cpu["instruction_sets"]) or "unknown"
    lines = [
        f"{'cpu':<12} {cpu['model']} ({cpu['architecture']}), {cpu['cores']} cores{memory}",
        f"{'threads':<12} {cpu['threads']} used by torch",
        f"{'instructions':<12} {sets}; torch uses {cpu['torch_instruction_set']}",
    ]
    gpus = [f"{'gpu':<12} {_describe_gpu(gpu)}" for gpu in facts["gpus"]]
    return lines + (gpus or [f"{'gpu':<12} none"])


def _describe_gpu(gpu: dict[str, Any]) -> str:
    memory = f"{gpu['memory_bytes'] / 2**30:.1f} GiB"
    return f"{gpu['name']}, {memory}, compute capability {gpu['capability']}"
