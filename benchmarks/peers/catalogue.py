"""The peers, and the best configuration of each on this machine."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

VENVS = Path(".cache/peers")


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer.

    Attributes:
        name: as on the command line; its environment is ``.cache/peers/<name>``.
        worker: module in ``benchmarks.peers.workers``.
        variants: its precisions; ``float32`` is held to chainrule's own sums.
        isolated: whether it has an environment of its own.
    """

    name: str
    worker: str
    variants: tuple[str, ...]
    isolated: bool = True

    @property
    def python(self) -> str:
        """The interpreter that its worker runs in."""
        return str(VENVS / self.name / "bin" / "python") if self.isolated else sys.executable

    def command(self, folder: Path, variant: str) -> list[str]:
        """What starts its worker."""
        module = f"benchmarks.peers.workers.{self.worker}"
        return [self.python, "-m", module, str(folder), variant]

    def missing(self) -> str | None:
        """Why it cannot be started, where its environment was not made."""
        if not self.isolated or (VENVS / self.name / ".ready").is_file():
            return None
        log = VENVS / f"{self.name}-setup.log"
        if not log.is_file():
            return f"not set up: make .cache/peers/{self.name}/.ready"
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()]
        return f"its set-up failed ({log}): {(errors or said or ['no output'])[-1].strip()}"

    @property
    def environment(self) -> dict[str, str]:
        """Added to what the worker inherits."""
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        return offline | (_vllm() if self.name == "vllm" else {})


PEERS = {
    peer.name: peer
    for peer in (
        Peer("vllm", "vllm_worker", ("float32", "bfloat16")),
        Peer("ctranslate2", "ctranslate2_worker", ("float32", "int8")),
        Peer("llama.cpp", "llama_cpp_worker", ("float32", "bfloat16")),
        Peer("transformers", "transformers_worker", ("float32", "bfloat16"), isolated=False),
        Peer("lm-eval", "lm_eval_worker", ("float32",)),
    )
}


def _vllm() -> dict[str, str]:
    """Both cores bound, room for every workload, and the OpenMP library that it asks for."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    openmp = VENVS / "vllm" / "lib" / "libiomp5.so"
    return {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "LD_PRELOAD": str(openmp.resolve()) if openmp.is_file() else "",
    }
