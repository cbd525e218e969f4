"""The command line: every command by name; those that ask have files under ``app.cli``.

Exit status: 0 as asked, 1 for a failure, 2 for a wrong command line or setting. An expected
failure is one line on standard error.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import ByteSize

from app import version
from app.cli.failure import fail
from app.cli.lazy_parser import LazyParser
from app.cli.serve import serve_command
from app.environment import PREFIX, env_name
from app.settings import Settings, SettingsError, flag_name, log_ignored_variables
from app.telemetry.logs import configure_logging

_GROUPS: Final = {
    "server": ("host", "port", "drain_timeout_s", "drain_delay_s", "watchdog_timeout_s"),
    "connections": (
        *("max_connections", "header_timeout_s", "body_timeout_s", "max_body_bytes_in_flight"),
    ),
    "model": (
        *("model", "revision", "served_name", "dtype", "device", "runner", "kernels"),
        "threads",
        "cache_dir",
        "max_model_len",
    ),
    "capacity": ("max_batch_tokens", "max_queue_tokens", "kv_cache_bytes", "score_cache_bytes"),
    "access": ("api_keys", "api_key_file", "allow_unauthenticated", "share_cache_across_keys"),
    "limits of a request": (
        *("max_body_bytes", "max_candidates", "max_top_logprobs", "default_timeout_ms"),
    ),
    "reranking": ("rerank_mode", "rerank_template", "rerank_instruction", "rerank_labels"),
    "decisions": ("decision_debias", "calibrations"),
    "page": ("playground",),
    "metrics": ("metrics_key", "metrics_port", "metrics_dialect"),
    "logging": ("log_level", "log_format"),
    "traces": ("traces",),
}
"""How --help orders the settings. A test sees to it that none is missing."""

_ASKING: Final = {
    "score": ("score.command", "score candidates, or the records of a file"),
    "next": ("next_token", "list the tokens that may come next"),
    "decode": ("decode", "search for the most probable continuations"),
    "audit": ("audit", "take scores apart"),
    "calibrate": ("calibrate.command", "fit probabilities of decisions to labelled questions"),
    "diagnose": ("diagnose.command", "say which known mistake made the scores of a file"),
    "verify": ("verify.command", "compute a receipt's scores again, and say whether they hold"),
    "selftest": ("selftest", "check that a server's numbers are right"),
    "bench": ("bench.command", "measure a server under load that does not wait for it"),
}
"""Commands that ask a server: the module under ``app.cli``, and what they do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except SettingsError as error:
        return fail(error, 2)
    except BrokenPipeError:
        # Whoever reads has read enough. Python would complain once more as it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        # The output is full, or cannot be written for another reason.
        return fail(error, 1)
    except KeyboardInterrupt:
        return 130


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    args = vars(parser.parse_args(argv))
    command = args.pop("command", None)
    if command is None:
        parser.print_help()
        return 0
    return int(command(args))


def model_command(flags: dict[str, Any], action: Callable[[Settings], str]) -> int:
    """``chainrule model``: print what the action says."""
    settings = Settings.read(flags)
    configure_logging(settings.log_level, "text")
    log_ignored_variables()
    from app.client import ClientError
    from model_runtime import ModelLoadError

    try:
        sys.stdout.write(f"{action(settings)}\n")
    except (ModelLoadError, ClientError) as error:
        return fail(error, 1)
    return 0


def _fetch(settings: Settings) -> str:
    from model_runtime import fetch_model

    return str(fetch_model(settings.model, settings.cache_dir))


def _info(settings: Settings) -> str:
    import httpx

    from app.cli.local_server import local_server
    from app.cli.server_address import ServerAddress
    from app.client import Client

    with local_server(settings) as path:
        server = ServerAddress("http://localhost", None, path)
        with server.client(Client, httpx.HTTPTransport) as client:
            return client.models()[0].model_dump_json(indent=2)


def version_command(_flags: dict[str, Any]) -> int:
    """``chainrule version``."""
    sys.stdout.write(f"chainrule {version()}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = LazyParser(
        prog="chainrule",
        description="Exact sequence log-probabilities from causal language models, over HTTP.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"chainrule {version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="answer requests until told to stop",
        description="Load a model and answer requests until SIGTERM.",
        epilog=f"Each setting is a flag and, in capitals behind {PREFIX}, an environment "
        "variable. The flag wins. Sizes take suffixes such as MiB.",
        allow_abbrev=False,
    )
    serve.set_defaults(command=serve_command)
    for title, fields in _GROUPS.items():
        group = serve.add_argument_group(title)
        for field in fields:
            _add_flag(group, field)
    for name, (module, about) in _ASKING.items():
        commands.add_parser(
            name,
            help=about,
            description=f"{about.capitalize()}.",
            allow_abbrev=False,
            fill=_filler(module),
        )
    _add_model_commands(commands)
    commands.add_parser("version", help="print the version").set_defaults(command=version_command)
    return parser


def _filler(module: str) -> Callable[[argparse.ArgumentParser], None]:
    # What a command brings along takes longer to import than all the rest of the command line.
    def fill(parser: argparse.ArgumentParser) -> None:
        importlib.import_module(f"app.cli.{module}").add_arguments(parser)

    return fill


def _add_model_commands(commands: Any) -> None:
    model = commands.add_parser("model", help="fetch or describe a model")
    actions = model.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, run, fields, about in (
        ("fetch", _fetch, ("cache_dir",), "get a built-in model and print its folder"),
        ("info", _info, _GROUPS["model"][1:], "load a model and print what would be served"),
    ):
        action = actions.add_parser(name, help=about, description=f"{about.capitalize()}.")
        action.set_defaults(command=partial(model_command, action=run))
        about_model = f"default: {env_name('model')}, or {Settings.model_fields['model'].default}"
        action.add_argument("model", nargs="?", default=argparse.SUPPRESS, help=about_model)
        for field in fields:
            _add_flag(action, field)


def _add_flag(parser: Any, field: str) -> None:
    info = Settings.model_fields[field]
    about = " ".join((info.description or "").split())
    default = "" if info.default in (None, ()) else f", default {_shown(info.default)}"
    options: dict[str, Any] = {
        "dest": field,
        "default": argparse.SUPPRESS,
        "help": f"{about} [{env_name(field)}{default}]".replace("%", "%%"),
    }
    if info.annotation is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["metavar"] = _metavar(field, info.annotation)
    parser.add_argument(flag_name(field), **options)


def _metavar(field: str, annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "{" + ",".join(map(str, get_args(annotation))) + "}"
    return "BYTES" if "bytes" in field else field.rsplit("_", 1)[-1].upper()


def _shown(default: object) -> str:
    if isinstance(default, ByteSize):
        return default.human_readable()
    return str(default).lower() if isinstance(default, bool) else str(default)
