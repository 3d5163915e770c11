"""The table of results, printed line by line."""

from __future__ import annotations

from typing import Any


class Table:
    """The results, by name. Each is printed when it is added."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        self.figures[name] = {"value": round(value, 4), "unit": unit}
        print(f"{name:<62} {value:>12,.2f} {unit}", flush=True)

    def ratio(self, name: str, above: str, below: str, wanted: float) -> None:
        if above in self.figures and below in self.figures:
            value = self.figures[above]["value"] / self.figures[below]["value"]
            self.bound(name, value, "ratio", wanted, value >= wanted, "at least")

    def bound(self, name: str, value: float, unit: str, wanted: float, kept: bool, word: str) -> None:
        self.figures[name] = {"value": round(value, 4), "unit": unit, "wanted": wanted, "kept": kept}
        verdict = "kept" if kept else "NOT REACHED"
        print(f"{name:<62} {value:>12,.2f} {unit}   {word} {wanted:g}: {verdict}", flush=True)

    def at_most(self, name: str, value: float, unit: str, wanted: float) -> None:
        self.bound(name, value, unit, wanted, value <= wanted, "at most")
