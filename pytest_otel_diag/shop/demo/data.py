"""Data that requests carry: products, customers, currencies."""

from __future__ import annotations

from typing import NamedTuple


class Product(NamedTuple):
    """A product; ``price_usd`` in US dollars, ``picture`` a file below ``/images/products/``."""

    id: str
    name: str
    price_usd: float
    categories: tuple[str, ...]
    picture: str


class Person(NamedTuple):
    """A customer, with the currency of the order."""

    email: str
    city: str
    country: str
    currency: str
    card: str


PRODUCTS = (
    Product(
        "0PUK6V6EV0", "Solar System Color Imager", 175.0, ("accessories", "telescopes"), "ColorImager.jpg"
    ),
    Product(
        "1YMWWN1N4O",
        "Eclipsmart Travel Refractor Telescope",
        129.95,
        ("telescopes", "travel"),
        "EclipsmartTravelRefractorTelescope.jpg",
    ),
    Product("2ZYFJ3GM2N", "Roof Binoculars", 209.95, ("binoculars",), "RoofBinoculars.jpg"),
    Product(
        "66VCHSJNUP",
        "Starsense Explorer Refractor Telescope",
        349.95,
        ("telescopes",),
        "StarsenseExplorer.jpg",
    ),
    Product("6E92ZMYYFZ", "Solar Filter", 69.95, ("accessories", "telescopes"), "SolarFilter.jpg"),
    Product(
        "9SIQT8TOJO",
        "Optical Tube Assembly",
        3599.0,
        ("accessories", "telescopes", "assembly"),
        "OpticalTubeAssembly.jpg",
    ),
    Product("L9ECAV7KIM", "Lens Cleaning Kit", 21.95, ("accessories",), "LensCleaningKit.jpg"),
    Product("LS4PSXUNUM", "Red Flashlight", 57.08, ("accessories", "flashlights"), "RedFlashlight.jpg"),
    Product(
        "OLJCESPC7Z",
        "National Park Foundation Explorascope",
        101.96,
        ("telescopes",),
        "NationalParkFoundationExplorascope.jpg",
    ),
    Product("HQTGWGPNH4", "The Comet Book", 0.99, ("books",), "TheCometBook.jpg"),
)
PRODUCT_IDS = tuple(product.id for product in PRODUCTS)
BY_ID = {product.id: product for product in PRODUCTS}

CATEGORIES = ("binoculars", "telescopes", "accessories", "assembly", "travel", "books", None)
"""Categories that the load generator requests advertisements for."""

AD_CATEGORIES = {"binoculars": 1, "telescopes": 1, "accessories": 3, "assembly": 1, "travel": 1}
"""Advertisements per category; the demo has none for books and serves random ones."""

_US, _CA = "United States", "Canada"

PEOPLE = (
    Person("larry@example.com", "Mountain View", _US, "USD", "4432-8015-6152-0454"),
    Person("bill@example.com", "Redmond", _US, "USD", "4452-7643-1892-3453"),
    Person("mark@example.com", "Menlo Park", _US, "USD", "4539-1103-5661-7083"),
    Person("jeff@example.com", "Seattle", _US, "USD", "4916-0816-6217-7968"),
    Person("reed@example.com", "Los Gatos", _US, "USD", "4929-5431-0337-5647"),
    Person("tobias@example.com", "Ottawa", _CA, "CAD", "4763-1844-9699-8031"),
    Person("jack@example.com", "San Francisco", _US, "USD", "4929-6495-8333-3657"),
    Person("moore@example.com", "Santa Clara", _US, "USD", "4485-4803-8707-3547"),
    Person("gates@example.com", "Medina", _US, "USD", "4532-4211-7434-1278"),
)
"""The nine customers of the demo's people.json; one lives outside the United States."""

RATES = {"USD": 1.1305, "CAD": 1.5128, "CHF": 1.136, "EUR": 1.0, "GBP": 0.8597, "JPY": 126.4}
"""Units of a currency per euro, as in the currency service."""


def converted(amount: float, source: str, target: str) -> float:
    """Convert *amount* from *source* to *target* through euros, as the currency service does."""
    return amount / RATES[source] * RATES[target]
