"""What was measured, as a table and as curves over time."""

import csv
from pathlib import Path

COLUMNS = (
    "seconds jobs kills calm coordinator_bytes coordinator_descriptors coordinator_age "
    "worker_bytes worker_descriptors log_bytes records_bytes objects_bytes"
).split()
_PANELS = [
    ("resident memory, MiB", ("coordinator_bytes", "worker_bytes"), 1 << 20),
    ("open descriptors", ("coordinator_descriptors", "worker_descriptors"), 1),
    ("store, MiB", ("log_bytes", "records_bytes", "objects_bytes"), 1 << 20),
    ("jobs and kills", ("jobs", "kills"), 1),
]
_COLOURS = ("#6a3d9a", "#33a02c", "#e31a1c")
_WIDTH, _HEIGHT, _LEFT, _TOP = 900, 150, 70, 30


class Measures:
    """Rows of numbers, written as they come."""

    def __init__(self, file: Path):
        self.rows: list[dict[str, float]] = []
        self._file = file
        file.write_text(",".join(COLUMNS) + "\n")

    def add(self, **row: float) -> None:
        self.rows.append(row)
        with open(self._file, "a", newline="") as out:
            csv.DictWriter(out, COLUMNS).writerow({k: round(v) for k, v in row.items()})

    def growth(self, column: str, jobs_from: float) -> float:
        """How much a column grows a job: the slope of the straight line through what was measured
        of quiet processes since so many jobs."""
        points = [
            (row["jobs"], row[column])
            for row in self.rows
            if row["jobs"] >= jobs_from and row["coordinator_age"] > 10 and row[column] > 0
        ]
        if len(points) < 3:
            return 0.0
        mean_x, mean_y = (sum(it) / len(points) for it in zip(*points))
        over = sum((x - mean_x) * (y - mean_y) for x, y in points)
        under = sum((x - mean_x) ** 2 for x, _ in points)
        return over / under if under else 0.0

    def draw(self, file: Path) -> None:
        """The curves; nothing is drawn where a process did not run."""
        last = max((row["seconds"] for row in self.rows), default=1.0) or 1.0
        height = len(_PANELS) * (_HEIGHT + 2 * _TOP)
        out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            'font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
        ]
        for n, (title, columns, unit) in enumerate(_PANELS):
            top = n * (_HEIGHT + 2 * _TOP) + _TOP
            highest = max((row[it] / unit for row in self.rows for it in columns), default=1) or 1
            wide = _WIDTH - _LEFT - 20
            out.append(f'<text x="{_LEFT}" y="{top - 8}">{title}</text>')
            out.append(
                f'<path d="M{_LEFT} {top}v{_HEIGHT}h{wide}" fill="none" stroke="black"/>'
                f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">{highest:.0f}</text>'
                f'<text x="{_LEFT - 6}" y="{top + _HEIGHT}" text-anchor="end">0</text>'
                f'<text x="{_WIDTH - 20}" y="{top + _HEIGHT + 15}" text-anchor="end">'
                f"{last / 60:.0f} min</text>"
            )
            for column, colour in zip(columns, _COLOURS):
                points, drawn = "", False
                for row in self.rows:
                    x = _LEFT + wide * row["seconds"] / last
                    y = top + _HEIGHT * (1 - row[column] / unit / highest)
                    points += f"{'L' if drawn else 'M'}{x:.1f} {y:.1f}" if row[column] else ""
                    drawn = row[column] > 0
                out.append(f'<path d="{points}" fill="none" stroke="{colour}"/>')
            names = " ".join(
                f'<tspan fill="{colour}">{column.rsplit("_bytes")[0].replace("_", " ")}</tspan>'
                for column, colour in zip(columns, _COLOURS)
            )
            out.append(f'<text x="{_WIDTH - 20}" y="{top - 8}" text-anchor="end">{names}</text>')
        file.write_text("\n".join([*out, "</svg>\n"]))
