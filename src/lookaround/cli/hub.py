"""`lookaround hub`: trained networks for the Hugging Face hub, for timm, and for this package itself."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lookaround.models.record import ModelRecord
    from lookaround.models.variants import Model

HELP = "Trained networks: list those that come with the package; save and push any for the Hugging Face hub."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be done with a run, and what each takes."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the weights that come with the package, and what they reach")
    which = "run folder, or weights that come with the package"
    save = actions.add_parser("save", help="write config.json, model.safetensors and a card into a folder")
    save.add_argument("run", metavar="RUN", help=which)
    save.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder")
    push = actions.add_parser("push", help="upload the same, after `hf auth login`")
    push.add_argument("run", metavar="RUN", help=which)
    push.add_argument("--repo", required=True, metavar="USER/NAME", help="repository, made if need be")
    push.add_argument("--private", action="store_true", help="make it a private one")
    pack = actions.add_parser("pack", help="halve and test the weights, to come with the package")
    pack.add_argument("run", type=Path, metavar="RUN", help="folder of a run that was tested")
    pack.add_argument("--tag", required=True, metavar="NAME", help="name of the weights, as in digits")
    pack.add_argument("--into", type=Path, metavar="DIR", help="where to (weights/ of this package)")


def run(arguments: argparse.Namespace) -> int:
    """Do it, and say where it is.

    Raises:
        LookaroundError: the run cannot be read, or an argument cannot be used.
    """
    if arguments.action == "list":
        print("\n".join(_shipped()))
        return 0
    if arguments.action == "pack":
        print(_pack(arguments))
        return 0
    from lookaround.integrations import hub

    model, record, card = _read(arguments.run)
    if arguments.action == "save":
        print(hub.save_pretrained(model, arguments.out, record=record, card=card))
    else:
        private = True if arguments.private else None
        print(hub.push_to_hub(model, arguments.repo, record=record, card=card, private=private))
    return 0


def _shipped() -> list[str]:
    """Write a line for each set of weights: tag, network, figures of the test images."""
    from lookaround.models import list_pretrained
    from lookaround.training.card_facts import FIGURES, read_card_facts

    lines = []
    for tag, name in list_pretrained().items():
        figures = read_card_facts(tag).figures
        said = [f"{FIGURES[figure][0]} {value:{FIGURES[figure][2]}}" for figure, value in figures.items()]
        lines.append(f"{tag:<14} {name:<40} {', '.join(said)}".rstrip())
    return lines


def _pack(arguments: argparse.Namespace) -> Path:
    from lookaround.models.record import SHIPPED
    from lookaround.studies.shipped_weights import ship_weights

    return ship_weights(arguments.run, arguments.tag, SHIPPED if arguments.into is None else arguments.into)


def _read(run: str) -> "tuple[Model, ModelRecord, str]":
    """Read a model, what belongs to it, and the card that it has or that its run gives."""
    import dataclasses

    from lookaround.models import load_model
    from lookaround.models.record import HUB_RECORD_NAME, find_files
    from lookaround.training.card_facts import read_card_facts
    from lookaround.training.model_card import write_card

    model, record = load_model(run)
    file = find_files(run).record
    card = file.with_name("README.md" if file.name == HUB_RECORD_NAME else "card.md")
    if card.is_file():
        return model, record, card.read_text(encoding="utf-8")
    facts = read_card_facts(file.parent)
    record = dataclasses.replace(record, metrics=record.metrics | facts.figures)
    return model, record, write_card(facts)
