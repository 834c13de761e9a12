"""What a package is made of, as CycloneDX 1.5 has it: cryptomail, and what the package carries of others."""

import json
import re
from collections.abc import Iterable
from email.parser import HeaderParser
from pathlib import Path


def pins(text: str) -> dict[str, tuple[str, list[str]]]:
    """What a wheels.txt says: by name the version, and the SHA-256 of the wheels that will do."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"^([\w.-]+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*$", joined, re.MULTILINE)
    return {name: (version, re.findall(r"sha256:(\w+)", hashes)) for name, version, hashes in found}


def listing(version: str, wheels: dict[str, tuple[str, list[str]]], carried: Path) -> str:
    """The list, of the package of that version; `carried` holds the wheels, unpacked. It is the same each time."""
    components = [_component(name, pinned, hashes, carried) for name, (pinned, hashes) in sorted(wheels.items())]
    ours = {"type": "application", "bom-ref": "cryptomail", "name": "cryptomail", "version": version}
    ours |= {"licenses": [{"license": {"id": "MIT"}}]}  # type: ignore[dict-item]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": ours},
        "components": components,
        "dependencies": [{"ref": "cryptomail", "dependsOn": [one["bom-ref"] for one in components]}],
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _component(name: str, version: str, hashes: Iterable[str], carried: Path) -> dict[str, object]:
    [described] = [
        one
        for one in carried.glob("*.dist-info/METADATA")
        if one.parent.name.lower() == f"{name.replace('-', '_')}-{version}.dist-info".lower()
    ]
    metadata = HeaderParser().parsestr(described.read_text())
    terms = metadata["License-Expression"] or (metadata["License"] or "").splitlines()[0]
    reference = f"pkg:pypi/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "purl": reference,
        "licenses": [{"expression": terms}] if metadata["License-Expression"] else [{"license": {"name": terms}}],
        # One of them, by the machine: each is a wheel as its authors publish it.
        "properties": [{"name": "cryptomail:wheel-sha256", "value": one} for one in hashes],
    }
