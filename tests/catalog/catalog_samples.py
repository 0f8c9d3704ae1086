"""A flag that a user adds to the demo."""

FLAG = {
    "key": "paymentCacheLeak",
    "does": "The payment service keeps cards.",
    "category": "system_level",
    "severity": "high",
    "suggested": "on",
    "implemented_by": ["payment"],
    "absent": "Only our fork has it.",
    "periods": [{"releases": "3.0..", "name": "paymentCacheLeak", "variants": {"off": False, "on": True}}],
    "behaviour": "Each charge is kept.",
    "source": "read in source",
    "traffic": {"requests": "Charge", "services": ["payment"], "per_minute": 3.8, "source": "inferred"},
    "visibility": {"signals": ["metrics"], "seconds": 100, "shows": "memory", "source": "inferred"},
    "diagnosable": {"why": "Memory of payment grows."},
    "expectation": {
        "root_causes": [{"service": "payment", "mechanisms": ["memory"], "why": "It keeps cards."}],
    },
}
