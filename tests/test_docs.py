"""The documentation: every Python block runs, every link leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_CODE = [page for page in PAGES if "```python" in page.read_text()]


def python_blocks(page: Path) -> str:
    """Join the Python blocks of a page, keeping their line numbers."""
    lines: list[str] = []
    inside = False
    for line in page.read_text().splitlines():
        fence = line.startswith("```")
        lines.append("" if fence or not inside else line)
        inside = line.startswith("```python") if fence else inside
    return "\n".join(lines)


def test_there_are_pages_with_code() -> None:
    assert ROOT / "README.md" in WITH_CODE
    assert ROOT / "docs" / "operator.md" in WITH_CODE


@pytest.mark.usefixtures("shapes_unchecked")  # as they are for a reader; torch.fx passes no tensors
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_code_on_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = compile(python_blocks(page), str(page), "exec")
    namespace: dict[str, object] = {"__name__": "documentation"}
    exec(code, namespace)
    assert set(namespace) - {"__name__", "__builtins__"}


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *PAGES[1:]], ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_table_of_networks_is_complete_and_counted() -> None:
    from lookaround.cli.models import describe_model
    from lookaround.models import list_models

    pages = [(ROOT / "docs" / f"{name}.md").read_text() for name in ("models", "detection")]
    rows = re.findall(r"^\| `(\w+)` \| \d+x\d+ \| ([\d,]+) ", "\n".join(pages), re.M)
    printed = {name: int(parameters.replace(",", "")) for name, parameters in rows}
    assert sorted(printed) == sorted(list_models())
    chosen = ["resnet26", "sasa_resnet50_convstem", "sasa_resnet14_small", "sasa_retinanet_resnet26"]
    assert {name: printed[name] for name in chosen} == {
        name: describe_model(name)["parameters"] for name in chosen
    }


def test_every_override_is_described() -> None:
    import dataclasses

    from lookaround.models import ResNetConfig

    section = (ROOT / "docs" / "models.md").read_text().partition("## Overrides")[2].partition("```")[0]
    described = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    assert described == {field.name for field in dataclasses.fields(ResNetConfig)} - {"name"}


def test_every_override_of_a_detector_is_described() -> None:
    import dataclasses

    from lookaround.models import ResNetConfig, RetinaNetConfig

    section = (ROOT / "docs" / "detection.md").read_text().partition("## Overrides")[2].partition("```")[0]
    described = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    fields, shared = ({f.name for f in dataclasses.fields(c)} for c in (RetinaNetConfig, ResNetConfig))
    assert described == fields - shared


def test_every_recipe_is_described() -> None:
    from lookaround.training.recipes import list_recipes

    described = set(
        re.findall(
            r"`((?:digits|fashion_mnist|imagenet|scenes|coco)_\w+)`",
            (ROOT / "docs" / "training.md").read_text(),
        )
    )
    assert described == set(list_recipes())


def test_every_backend_is_described() -> None:
    from lookaround.ops import list_backends

    section = (
        (ROOT / "docs" / "operator.md").read_text().partition("## Backends")[2].partition("## Errors")[0]
    )
    assert re.findall(r"^\| `(\w+)` \|", section, re.M) == list_backends()
