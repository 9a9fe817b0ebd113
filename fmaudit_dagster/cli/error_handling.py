"""What every command shares: errors printed as paragraphs, the workspace of a config, parts that may not be installed."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from fmaudit_core.common.errors import FmauditError, MissingExtraError, missing_extra

if TYPE_CHECKING:
    from fmaudit_core.pipeline.workspace import Workspace

Command = TypeVar("Command", bound=Callable[..., Any])

_WIDTH: Final = 100


def report_errors(command: Command) -> Command:
    """Print our own errors as a paragraph and end with their exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except FmauditError as error:
            say_error(str(error))
            sys.exit(error.exit_code)
        except ModuleNotFoundError as error:
            extra = missing_extra(error, f"fmaudit {command.__name__.replace('_', ' ')}")
            if extra is None:
                raise
            say_error(str(extra))
            sys.exit(extra.exit_code)
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except OSError as error:  # a folder that must not be read or written; a library's error of data is no OSError
            where = f"{error.filename}: " if error.filename else ""
            say_error(f"{where}{(error.strerror or str(error)).lower()}.")
            sys.exit(1)

    return wrapped  # type: ignore[return-value]  # functools.wraps keeps the signature


def say_error(text: str) -> None:
    """Print to stderr, wrapped; paths are kept whole, to be copied."""
    click.echo(click.wrap_text(text, width=_WIDTH, preserve_paragraphs=True), err=True)


def workspace_of(config: Path) -> Workspace:
    """Open the workspace of an audit.yaml."""
    from fmaudit_core.pipeline.workspace import open_workspace

    return open_workspace(config)


def need(module: str, extra: str, command: str) -> None:
    """Refuse a command whose optional part is not installed.

    Raises
    ------
    MissingExtraError
        Names the part.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(extra, command)


def registered(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Names of the registry, for the shell's completion: a look at file names only, and nothing where there is no audit."""
    try:
        folder = workspace_of(context.find_root().obj or _config(context)).audit.encoders
        names = [path.stem for path in folder.glob("[!.]*.y*ml")]
    except (FmauditError, OSError):
        return []
    return sorted(name for name in names if name.startswith(incomplete))


def configured_tasks(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Tasks of the audit, for the shell's completion."""
    try:
        tasks = workspace_of(context.find_root().obj or _config(context)).audit.tasks
    except (FmauditError, OSError):
        return []
    return [task for task in tasks if task.startswith(incomplete)]


def _config(context: click.Context) -> Path:
    """Return the config of a command line that is only being completed: the group's own function has not run."""
    from fmaudit_core.config import audit_path_from_environment

    given = context.find_root().params.get("config")
    return Path(given).absolute() if given else audit_path_from_environment()
