"""Start the built image without a container engine, and use it as its users would.

Usage: python3 deploy/image_test.py [--image NAME:TAG] [--store FOLDER] [--kernels KIND]   (as root)

The image's own entry point, user, environment and health check are read from it and used as they
are, with the variables of a pod. It must refuse to listen without an API key, turn healthy with
one, score by curl with the kernels that it was built with, have written nothing outside /tmp, and
end with status 0 after SIGTERM. Exit status 0 means that it did.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger("image-test")

REFUSED_S = 60.0
READY_S = 180.0
STOP_S = 40.0
KEY_TARGET = "/run/secrets/chainrule_api_key"
POD = {
    "HOME": "/",
    "CHAINRULE_SERVICE_HOST": "10.96.0.7",
    "CHAINRULE_SERVICE_PORT": "8000",
    "CHAINRULE_SERVICE_PORT_HTTP": "8000",
    "CHAINRULE_PORT_8000_TCP": "tcp://10.96.0.7:8000",
    "CHAINRULE_PORT_8000_TCP_ADDR": "10.96.0.7",
}
"""What Kubernetes sets beside a Service called chainrule: names that begin as settings do."""
QUESTION = {
    "context": "The capital of France is",
    "candidates": [" London", " Paris", " banana"],
}


class ImageError(Exception):
    """The image does not do what it must. The message says what it did."""


@dataclass(frozen=True)
class Container:
    """A working container of the image, and how the image wants to be run.

    Attributes:
        buildah: the command with its storage options.
        name: of the working container.
        root: its file system.
        config: the image's ``config`` object, in Docker's format.
    """

    buildah: list[str]
    name: str
    root: Path
    config: dict[str, Any]

    def run(self, command: list[str], *options: str) -> list[str]:
        """The command line that runs ``command`` inside, with no capability."""
        chroot = ["run", "--isolation", "chroot", "--cap-drop", "all", *options]
        return [*self.buildah, *chroot, self.name, "--", *command]

    @property
    def start_command(self) -> list[str]:
        return [*self.config["Entrypoint"], *self.config["Cmd"]]

    @property
    def health_command(self) -> list[str]:
        kind, *command = self.config["Healthcheck"]["Test"]
        if kind != "CMD":
            raise ImageError(f"the health check is {kind}, which needs a shell")
        return list(command)


@contextmanager
def container(image: str, store: Path) -> Iterator[Container]:
    """A container of ``image``, removed in the end."""
    storage = ["--root", f"{store}/root", "--runroot", f"{store}/run", "--storage-driver", "vfs"]
    buildah = ["buildah", *storage]
    name = read([*buildah, "from", "--pull-never", image]).strip()
    try:
        root = Path(read([*buildah, "mount", name]).strip())
        config = json.loads(json.loads(read([*buildah, "inspect", name]))["Config"])["config"]
        yield Container(buildah, name, root, config)
    finally:
        subprocess.run([*buildah, "rm", name], check=True, stdout=subprocess.DEVNULL)


def read(command: list[str]) -> str:
    """What ``command`` prints; it must succeed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def server(box: Container, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The image's own command, running, its output in ``log``; killed in the end if need be."""
    with log.open("wb") as file:
        command = box.run(box.start_command, *options)
        starter = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield starter
    finally:
        if starter.poll() is None:
            os.kill(server_of(starter), signal.SIGKILL)
            starter.wait()


def check_refuses_without_key(box: Container, log: Path) -> None:
    """Off loopback and without a key the server must not start."""
    with server(box, log) as starter:
        try:
            status = starter.wait(REFUSED_S)
        except subprocess.TimeoutExpired:
            raise ImageError("it listens off loopback without an API key") from None
    reasons = [line for line in log.read_text().splitlines() if "CHAINRULE_API_KEY" in line]
    if status == 0 or not reasons:
        raise ImageError(f"without a key it ends with status {status} and no word about one")
    logger.info("without a key: status %d, %s", status, reasons[0])


def server_of(starter: subprocess.Popen[bytes]) -> int:
    """The process id of the server: the last of the chain that buildah makes."""
    pid = starter.pid
    while children := children_of(pid):
        pid = children[0]
    return pid


def children_of(pid: int) -> list[int]:
    """The process ids of the children that any thread of ``pid`` has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in lists for child in file.read_text().split()]


def wait_until_healthy(box: Container, starter: subprocess.Popen[bytes], port: int) -> float:
    """Run the image's own health check until it passes; the seconds that took."""
    began = time.monotonic()
    check = box.run(box.health_command, "--env", f"CHAINRULE_PORT={port}")
    while time.monotonic() - began < READY_S:
        if starter.poll() is not None:
            raise ImageError(f"the server ended with status {starter.returncode}")
        if subprocess.run(check, capture_output=True).returncode == 0:
            return time.monotonic() - began
        time.sleep(0.2)
    raise ImageError(f"not healthy after {READY_S:.0f} s")


def check_user(box: Container, pid: int) -> None:
    """The server must run as the image's numeric user."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    uid, wanted = status["Uid"].split()[0], box.config["User"].split(":")[0]
    if uid != wanted or uid == "0":
        raise ImageError(f"the server runs as user {uid}; the image says {wanted}")
    memory = int(status["VmHWM"].split()[0]) / 1024
    logger.info("user %s, capabilities %s, %.0f MiB at most", uid, status["CapEff"], memory)


def curl(port: int, key: str | None) -> tuple[int, dict[str, Any]]:
    """POST the question with curl: the status and the answer."""
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "60",
        "--write-out",
        "\n%{http_code}",
    ]
    if key is not None:
        command += ["--header", f"Authorization: Bearer {key}"]
    command += ["--json", json.dumps(QUESTION), f"http://127.0.0.1:{port}/v1/score"]
    body, _, status = read(command).rpartition("\n")
    return int(status), json.loads(body)


def check_kernels(port: int, key: str, kernels: str) -> None:
    """What /v1/models says computes."""
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "60"]
    command += ["--header", f"Authorization: Bearer {key}", f"http://127.0.0.1:{port}/v1/models"]
    (card,) = json.loads(read(command))["data"]
    if card["kernels"] != kernels:
        reason = card.get("kernels_reason", "that is what was asked for")
        raise ImageError(f"kernels are {card['kernels']}, not {kernels}: {reason}")
    logger.info("kernels: %s", kernels)


def check_scores(port: int, key: str) -> None:
    """A request without the key is refused; with it " Paris" ranks first."""
    status, answer = curl(port, None)
    if status != 401:
        raise ImageError(f"without a key the answer is {status}: {answer}")
    status, answer = curl(port, key)
    if status != 200:
        raise ImageError(f"the answer is {status}: {answer}")
    texts = QUESTION["candidates"]
    for item in sorted(answer["results"], key=lambda item: item["rank"]):
        logger.info("rank %d  %-8r %s", item["rank"], texts[item["index"]], item["logprob"])
    first = [texts[item["index"]] for item in answer["results"] if item["rank"] == 1]
    if first != [" Paris"]:
        raise ImageError(f"ranked first: {first}")


def check_stops(starter: subprocess.Popen[bytes], pid: int, number: int) -> None:
    """The image's stop signal must end the server with status 0."""
    began = time.monotonic()
    os.kill(pid, number)
    try:
        status = starter.wait(STOP_S)
    except subprocess.TimeoutExpired:
        raise ImageError(f"still running {STOP_S:.0f} s after the stop signal") from None
    if status != 0:
        raise ImageError(f"the stop signal ended it with status {status}")
    logger.info("stopped with status 0 in %.1f s", time.monotonic() - began)


def check_wrote_nothing(box: Container, since: float) -> None:
    """With a read-only root nothing may change but what is mounted over it."""
    user = box.config["User"].split(":")[0]
    find = ["find", str(box.root), "-path", f"{box.root}/tmp", "-prune", "-o"]
    find += ["-uid", user, "-newermt", f"@{since}", "-print"]
    if written := read(find).split():
        raise ImageError(f"the server wrote {', '.join(written)}")
    logger.info("nothing written outside /tmp")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def check(box: Container, folder: Path, kernels: str) -> None:
    """Every check in turn. The server's output goes to ``folder/log``."""
    since, port, key, log = time.time(), free_port(), secrets.token_hex(16), folder / "log"
    check_refuses_without_key(box, log)
    key_file = folder / "key"
    key_file.write_text(f"{key}\n")
    key_file.chmod(0o444)
    options = ["--volume", f"{key_file}:{KEY_TARGET}:ro"]
    options += ["--env", f"CHAINRULE_API_KEY_FILE={KEY_TARGET}", "--env", f"CHAINRULE_PORT={port}"]
    options += [word for name, value in POD.items() for word in ("--env", f"{name}={value}")]
    with server(box, log, *options) as starter:
        logger.info("healthy after %.1f s", wait_until_healthy(box, starter, port))
        pid = server_of(starter)
        check_user(box, pid)
        check_kernels(port, key, kernels)
        check_scores(port, key)
        check_stops(starter, pid, signal.Signals[box.config.get("StopSignal", "SIGTERM")])
    check_wrote_nothing(box, since)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image", default="chainrule:latest")
    parser.add_argument("--store", type=Path, default=Path(".cache/image"))
    parser.add_argument("--kernels", choices=("native", "torch"), default="native")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        # The image's user must be able to reach the key through this folder.
        Path(folder).chmod(0o755)
        try:
            with container(args.image, args.store.resolve()) as box:
                check(box, Path(folder), args.kernels)
        except ImageError as error:
            log = Path(folder, "log")
            sys.stderr.write(log.read_text(errors="replace") if log.exists() else "")
            sys.exit(f"image-test: {error}")


if __name__ == "__main__":
    main()
