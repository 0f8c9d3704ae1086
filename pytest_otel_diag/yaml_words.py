"""YAML for files that people write: ``on`` and ``off`` are words."""

from __future__ import annotations

try:  # eight times faster; every process with the plugin reads the catalog
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]


class OnOffLoader(SafeLoader):
    """YAML in which ``on`` and ``off`` are words, not booleans, because variants have these names."""


OnOffLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, known in SafeLoader.yaml_implicit_resolvers.items()
}
