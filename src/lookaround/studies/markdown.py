"""Tables in Markdown, aligned so that they read well in a terminal too."""

from collections.abc import Sequence

LEAST_WIDTH = 3  # of a column: Markdown wants as many dashes


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    """Write a table.

    Args:
        header: what each column is called.
        rows: cells, as many in each row as there are columns.
        left: of each column whether it is aligned to the left; numbers are aligned to the right.

    Example:
        >>> print(markdown_table(["run", "seconds"], [["first", "7"]], [True, False]))
        | run   | seconds |
        | ----- | ------: |
        | first |       7 |
    """
    cells = [header, *rows]
    widths = [max(LEAST_WIDTH, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * w if is_left else "-" * (w - 1) + ":" for w, is_left in zip(widths, left, strict=True)]
    lines = [_line(row, widths, left) for row in cells]
    lines.insert(1, f"| {' | '.join(rule)} |")
    return "\n".join(lines)


def words_first(columns: int, words: int = 1) -> list[bool]:
    """Tell `markdown_table` that the first columns hold words and the others numbers.

    Example:
        >>> words_first(3)
        [True, False, False]
    """
    return [column < words for column in range(columns)]


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    placed = [
        cell.ljust(width) if is_left else cell.rjust(width)
        for cell, width, is_left in zip(cells, widths, left, strict=True)
    ]
    return f"| {' | '.join(placed)} |"
