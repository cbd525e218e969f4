"""A generated catalogue: product names as a shop has them, many of which begin alike."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

BRANDS = (
    "Northwind", "Alder & Finch", "Kestrel", "Maison Duret", "Brightwater", "Ostermann", "Hikari",
    "Blue Fern", "Tallis", "Red Canyon", "Lumen", "Sabro", "Ironbark", "Petit Bateau", "Vantage",
    "Olive Grove", "Quarry", "Stellar", "Falk", "Meridian", "Cobalt", "Fjord", "Amberley", "Nimbus",
)  # fmt: skip

LINES = (
    "Classic", "Trail", "Urban", "Pro", "Heritage", "Summit", "Lite", "Essential", "Studio",
    "Coastal", "Winter", "Active", "Junior", "Premium",
)  # fmt: skip

PRODUCTS = (
    "running shoes", "leather boots", "rain jacket", "wool sweater", "hiking backpack", "desk lamp",
    "coffee grinder", "water bottle", "yoga mat", "cotton shirt", "frying pan", "office chair",
    "wireless headphones", "mechanical keyboard", "travel mug", "sleeping bag", "kitchen knife",
    "bath towel", "garden hose", "electric kettle", "camping stove", "bicycle helmet",
)  # fmt: skip

TRAITS = (
    "for men", "for women", "for kids", "in black", "in dark blue", "in olive green", "in red",
    "with hood", "waterproof", "extra large", "small", "2-pack", "limited edition", "in oak",
    "stainless steel", "recycled",
)  # fmt: skip

RELATED = (
    "A customer searched our shop for: warm waterproof boots for a winter hike. "
    "The product that fits best is the"
)
UNRELATED = "The committee voted to adjourn the meeting until the members had read the report on"


def names(count: int, seed: int = 41) -> list[str]:
    """The first ``count`` different names, each after a blank; the same for the same seed."""
    source = random.Random(seed)
    return list(itertools.islice(_distinct(source), count))


def _distinct(source: random.Random) -> Iterator[str]:
    seen: set[str] = set()
    while True:
        name = _name(source)
        if name not in seen:
            seen.add(name)
            yield name


def _name(source: random.Random) -> str:
    parts = [_popular(source, BRANDS), _popular(source, LINES)]
    if source.random() < 0.3:
        parts.append(str(source.randrange(100, 1000)))
    parts.append(_popular(source, PRODUCTS))
    parts += source.sample(TRAITS, source.choice((0, 1, 1, 2)))
    return " " + " ".join(parts)


def _popular(source: random.Random, names: tuple[str, ...]) -> str:
    """The earlier ones more often, as brands sell."""
    return names[min(int(source.paretovariate(0.6)) - 1, source.randrange(len(names)))]
