"""lm-evaluation-harness on the task beside this file, by its own model or through a server."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoTokenizer

from tests.offline import eager_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own source and of what it imports
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI
    from lm_eval.tasks import TaskManager

READING = Path(__file__).parent / "reading"

Answers = dict[tuple[int, int], tuple[float, bool]]
"""(document, choice) -> log-likelihood and whether it is greedy."""


@contextmanager
def quiet_and_offline(cache: Path) -> Iterator[None]:
    """No progress bars, no hub, and data cached in ``cache``."""
    config = datasets.config
    before = config.HF_DATASETS_CACHE, config.HF_DATASETS_OFFLINE
    config.HF_DATASETS_CACHE, config.HF_DATASETS_OFFLINE = cache, True
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    yield
    config.HF_DATASETS_CACHE, config.HF_DATASETS_OFFLINE = before


def own_model(folder: Path, batch_size: int = 1) -> HFLM:
    """What the harness itself makes of a model, in float32 as transformers runs it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return HFLM(eager_model(folder, torch.float32), tokenizer=tokenizer, batch_size=batch_size)


def through_server(url: str, folder: Path, **options: Any) -> LocalCompletionsAPI:
    """Its client of OpenAI's completions."""
    return LocalCompletionsAPI(
        base_url=f"{url}/v1/completions",
        model="smollm2-135m-instruct",
        tokenizer=str(folder),
        **options,
    )


def through_chat(url: str, **options: Any) -> LocalChatCompletion:
    """Its client of OpenAI's chats."""
    return LocalChatCompletion(
        base_url=f"{url}/v1/chat/completions", model="smollm2-135m-instruct", **options
    )


def answers_to_chats(model: object, documents: int) -> list[str]:
    """What the model says to the first ``documents``, each as the user's message."""
    task: dict[str, Any] = yaml.safe_load((READING / "answering.yaml").read_text())
    task["dataset_kwargs"] = {"data_files": {"test": str(READING / "reading.jsonl")}}
    found = simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        limit=documents,
        log_samples=True,
        bootstrap_iters=0,
        verbosity="ERROR",
        apply_chat_template=True,
    )
    if found is None:
        raise RuntimeError("the harness gave no results")
    return [str(sample["filtered_resps"][0]) for sample in found["samples"]["answering"]]


def evaluate(model: object, documents: int) -> tuple[float, Answers]:
    """Accuracy, and what the model said of every choice, on the first ``documents``."""
    task: dict[str, Any] = yaml.safe_load((READING / "reading.yaml").read_text())
    task["dataset_kwargs"] = {"data_files": {"test": str(READING / "reading.jsonl")}}
    found = simple_evaluate(
        model=model,
        tasks=[task],
        # Reading through the thousands of tasks that it brings takes ten seconds.
        task_manager=TaskManager(include_defaults=False),
        limit=documents,
        log_samples=True,
        bootstrap_iters=0,
        verbosity="ERROR",
    )
    if found is None:
        raise RuntimeError("the harness gave no results")
    answers: Answers = {}
    for sample in found["samples"]["reading"]:
        for choice, response in enumerate(sample["filtered_resps"]):
            logprob, greedy = response
            answers[sample["doc_id"], choice] = float(logprob), str(greedy) == "True"
    if len(answers) != 4 * documents:
        raise RuntimeError(f"the harness answered {len(answers)} of {4 * documents} choices")
    return found["results"]["reading"]["acc,none"], answers
