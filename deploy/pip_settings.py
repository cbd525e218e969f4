"""Carry this machine's way to its package index into an image build.

Usage: python3 deploy/pip_settings.py FOLDER

Reads what pip is told here, by files and by environment, and writes into FOLDER:

    pip.conf   the settings that say where packages come from: the secret ``pip-conf``
    ca-bundle  the certificate authorities pip is told to trust, if any: the secret ``ca-bundle``
    mounts     local folders that those settings point into, one a line, to mount at the same path
"""

from __future__ import annotations

import ast
import configparser
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

INDEXES = ("index-url", "extra-index-url")
LINKS = "find-links"
PLAIN = ("no-index", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
SECTIONS = ("global", "install", ":env:")  # each overrides the ones before it
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
CA_TARGET = "/run/secrets/ca-bundle"


def read_settings() -> dict[str, str]:
    """What ``pip config list`` says for ``pip install``, by option name."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    entries = [line.partition("=") for line in lines if "=" in line]
    values = {name: str(ast.literal_eval(text)) for name, _, text in entries}
    settings: dict[str, str] = {}
    for section in SECTIONS:
        for name, value in values.items():
            if name.startswith(f"{section}.") and value:
                settings[name.removeprefix(f"{section}.")] = value
    return settings


def local_path(location: str) -> Path | None:
    """The absolute local path of a URL or path; None for anything on the network."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(location).resolve() if not parts.scheme else None


def index_folder(path: Path) -> Path:
    """What to mount for a local index: its pages link to files beside the ``simple`` folder."""
    return path.parent if path.name == "simple" and path.parent != Path("/") else path


def links_folder(path: Path) -> Path:
    """What to mount for a local ``find-links``: the folder, or the one that holds the page."""
    return path if path.is_dir() else path.parent


def absolute(location: str) -> str:
    """``location`` with a relative path made absolute; URLs as they are."""
    return location if urlsplit(location).scheme else str(local_path(location))


def main(folder: Path) -> None:
    settings = read_settings()
    carried = {name: settings[name] for name in (*INDEXES, *PLAIN) if name in settings}
    mounts = {
        index_folder(path)
        for name in INDEXES
        for path in map(local_path, settings.get(name, "").split())
        if path is not None
    }
    links = settings.get(LINKS, "").split()
    mounts |= {links_folder(path) for path in map(local_path, links) if path is not None}
    if links:
        carried[LINKS] = " ".join(map(absolute, links))

    named = [settings.get("cert"), *(os.environ.get(variable) for variable in CA_VARIABLES)]
    bundles = [Path(name) for name in named if name and Path(name).is_file()]
    if bundles:
        carried["cert"] = CA_TARGET
    (folder / "ca-bundle").write_bytes(bundles[0].read_bytes() if bundles else b"")

    config = configparser.RawConfigParser()
    config["global"] = carried
    with (folder / "pip.conf").open("w") as file:
        config.write(file)
    existing = sorted(str(path) for path in mounts if path.is_dir())
    (folder / "mounts").write_text("".join(f"{path}\n" for path in existing))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
