"""The recipes that come with the package: one YAML file per published run."""

from pathlib import Path

from lookaround.errors import ConfigError, closest, message

FOLDER = Path(__file__).resolve().parent.parent / "recipes"


def list_recipes() -> list[str]:
    """Names of all packaged recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path to a YAML file, or the bare name of a packaged recipe.

    Raises:
        ConfigError: there is no such file, and no packaged recipe of this name.

    Example:
        >>> find_recipe("digits_baseline").name
        'digits_baseline.yaml'
    """
    path = Path(name)
    if path.is_file():
        return path
    stem = name.removesuffix(".yaml")
    if stem in list_recipes():
        return FOLDER / f"{stem}.yaml"
    must = "--config must be a YAML file that exists or the name of a packaged recipe"
    raise ConfigError(message("fit", must, repr(name), hint=closest(stem, list_recipes())))


def resolve_recipes(arguments: list[str]) -> tuple[list[str], str | None]:
    """Replace recipe names after `--config` or `-c` by their files; also give the stem of the last one."""
    resolved: list[str] = []
    stem: str | None = None
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if index > 0 and arguments[index - 1] in ("-c", "--config"):
            prefix, value = "", argument
        elif equals and option == "--config":
            prefix = "--config="
        else:
            resolved.append(argument)
            continue
        path = find_recipe(value)
        stem = path.stem
        resolved.append(f"{prefix}{path}")
    return resolved, stem
