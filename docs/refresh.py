"""Put what the commands produced into README and docs, between the markers made for it.

    python docs/refresh.py demo runs/demo     table and pictures of a demo run
    python docs/refresh.py models             tables of the networks
    python docs/refresh.py bench              results of `lookaround bench` under benchmarks/results
    python docs/refresh.py paper              results of `lookaround paper` under benchmarks/results/paper

Run by `make readme-figures`. Nothing on these pages is typed by hand that a command can produce.
"""

import argparse
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES = {
    "learning_curves.png": "Loss and accuracy by epoch, three networks",
    "attention_maps.png": "Where each head of each layer looks, for a few test images",
    "confusion_matrix.png": "Which digits the full-attention network takes for which",
    "detections.png": "Digits that the detector found in held-out scenes, with its scores",
}


def put_between(page: Path, name: str, text: str) -> None:
    """Replace what stands between the markers `name:begin` and `name:end` of a page."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = page.read_text().partition(begin)
    _, marker, after = rest.partition(end)
    if not marker:
        raise SystemExit(f"{page}: the markers {begin} and {end} must be there, in this order.")
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")


def refresh_demo(run: Path) -> None:
    """Copy table and pictures of the demo into the README."""
    if not (run / "results.md").exists():
        raise SystemExit(f"{run}: results.md must be there.\nhint: run `make demo` first.")
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    parts = ["## What `make demo` shows", (run / "results.md").read_text().strip()]
    for name, caption in PICTURES.items():
        shutil.copyfile(run / name, images / f"demo_{name}")
        parts.append(f"![{caption}](docs/images/demo_{name})")
    put_between(ROOT / "README.md", "demo", "\n\n".join(parts))


def refresh_models() -> None:
    """Write the tables of the networks into docs/models.md, docs/detection.md and the README."""
    from lookaround.models import list_models

    classifiers = list_models(task="classification")
    put_between(ROOT / "docs" / "models.md", "models", models_table(classifiers))
    detectors = list_models(task="detection")
    put_between(ROOT / "docs" / "detection.md", "detectors", models_table(detectors))
    large = [name for name in classifiers if not name.endswith("_small")]
    put_between(ROOT / "README.md", "models", models_table(large))


def models_table(names: list[str]) -> str:
    """Tabulate parameters and FLOPs of the named networks, as `lookaround models` has them."""
    from lookaround.cli.models import describe_model

    lines = [
        "| name | image | parameters | GFLOPs as the paper counts | GFLOPs as executed |",
        "|---|---|--:|--:|--:|",
    ]
    for row in map(describe_model, names):
        size, parameters = row["image_size"], row["parameters"]
        flops = f"{row['paper_flops'] / 1e9:.2f} | {row['executed_flops'] / 1e9:.2f}"
        lines.append(f"| `{row['name']}` | {size}x{size} | {parameters:,} | {flops} |")
    return "\n".join(lines)


def refresh_bench(results: Path) -> None:
    """Put tables and charts of the committed measurements onto the page about performance."""
    parts = []
    for path in sorted(results.glob("*.md")):
        parts.append(f"### `{path.stem}`\n\n{shorten_results(path.read_text())}")
        chart = path.with_suffix(".png")
        if chart.exists():
            shutil.copyfile(chart, ROOT / "docs" / "images" / f"bench_{chart.name}")
            parts.append(f"![Chart of {path.stem}](images/bench_{chart.name})")
    put_between(ROOT / "docs" / "performance.md", "bench", "\n\n".join(parts) or "None is committed yet.")


def refresh_paper(results: Path) -> None:
    """Copy the claims and the pictures of the paper's tables into docs/paper.md."""
    text = (results / "results.md").read_text()
    status, _, rest = text.partition("## Claims")
    claims, _, _ = rest.partition("## Reading")
    pictures = []
    for _, caption, name in re.findall(r"^(!\[(.*)\]\((.*\.png)\))$", text, re.MULTILINE):
        shutil.copyfile(results / name, ROOT / "docs" / "images" / f"paper_{name}")
        pictures.append(f"![{caption}](images/paper_{name})")
    measured = status.partition("\n")[2].strip()
    put_between(ROOT / "docs" / "paper.md", "claims", f"{measured}\n\n{claims.strip()}")
    put_between(ROOT / "docs" / "paper.md", "pictures", "\n\n".join(pictures))


def shorten_results(text: str) -> str:
    """Leave out the table of every measurement, which the file itself has, and lower the headings."""
    before, heading, rest = text.partition("### Every measurement")
    # After the heading: its last words, the table, and what is said about the run.
    kept = rest.split("\n\n", 2)[2] if heading else ""
    return f"{before}{kept}".replace("### ", "#### ").strip()


def main() -> None:
    """Parse the command line and refresh."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo")
    demo.add_argument("run", type=Path)
    commands.add_parser("models")
    bench = commands.add_parser("bench")
    bench.add_argument("results", type=Path, nargs="?", default=ROOT / "benchmarks" / "results")
    paper = commands.add_parser("paper")
    paper.add_argument("results", type=Path, nargs="?", default=ROOT / "benchmarks" / "results" / "paper")
    arguments = parser.parse_args()
    if arguments.command == "demo":
        refresh_demo(arguments.run)
    elif arguments.command == "bench":
        refresh_bench(arguments.results)
    elif arguments.command == "paper":
        refresh_paper(arguments.results)
    else:
        refresh_models()


if __name__ == "__main__":
    main()
