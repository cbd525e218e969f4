"""The notebook of the documentation, run against a server.

``python -m tests.end_to_end.notebook`` writes its outputs into ``docs/``.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.end_to_end.live_server import live_server

FILE = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
SHOWN_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 120
ANSWER = re.compile(r"(\w+Answer)\(")


def run(url: str) -> nbformat.NotebookNode:
    """The notebook as it looks once all of its cells were run against the server at ``url``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(FILE, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(SHOWN_URL, url)
    where = {"metadata": {"path": str(FILE.parents[1])}}
    NotebookClient(notebook, timeout=TIMEOUT_S, record_timing=False, resources=where).execute()
    for cell in notebook.cells:
        cell.source = cell.source.replace(url, SHOWN_URL)
        for output in cell.get("outputs", ()):
            # Where the answer is drawn, its fields are no use: ids and times among them.
            text = output.get("data", {}).get("text/plain", "")
            if found := ANSWER.match(text):
                output.data["text/plain"] = f"<{found[1]}>"
    return notebook


def main() -> None:
    """Write the notebook with its outputs."""
    with live_server(kv_cache_bytes="512MiB") as server:
        notebook = run(server.url)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    nbformat.write(notebook, FILE)


if __name__ == "__main__":
    main()
