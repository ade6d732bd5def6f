"""The record as a table for a terminal."""

from bench.record import Record, Row

__all__ = ["number", "table"]


def table(record: Record) -> str:
    """Lay the rows out; the last lines say what to be careful about."""
    cells = [("", "median", "spread", "target", "", "")]
    cells += [
        (
            row.what,
            f"{number(row.value.median)} {row.unit}",
            _spread(row),
            _target(row),
            {True: "met", False: "MISSED", None: ""}[row.met],
            row.note,
        )
        for row in record.rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = [_heading(record)]
    for line in cells:
        first, *rest = (cell.ljust(width) for cell, width in zip(line, widths, strict=False))
        lines.append("  ".join([first, *rest, line[5]]).rstrip())
    lines += [f"WARNING: {warning}" for warning in record.warnings]
    lines += [f"FAILED: {failure}" for failure in record.failures]
    return "\n".join(lines)


def _heading(record: Record) -> str:
    machine = record.machine
    return (
        f"{machine.date}  {machine.processor}, {machine.cores} cores, Linux {machine.kernel}, "
        f"Python {machine.python}, SQLite {machine.sqlite} on {machine.file_system}, "
        f"load average before {machine.load_average:.2f}"
    )


def _spread(row: Row) -> str:
    low, high = row.value.low, row.value.high
    return "" if low == high else f"{number(low)} .. {number(high)}"


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    return f"{'<=' if row.at_most else '>='} {number(row.target)} {row.unit}"


def number(value: float) -> str:
    """Three significant digits, or whole thousands with commas."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
