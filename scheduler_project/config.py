"""Configuration from the environment (SIGNALBOX_*), validated once, with every key known.

A variable that begins with SIGNALBOX_ and is not known stops the start with a suggestion. Options of the sections are
named SIGNALBOX_<SECTION>__<KEY>, for example SIGNALBOX_WORKERS__LEASE_SECONDS=30; their types come from the sections'
dataclasses. Layered files and hot reload will feed the same `Config`.
"""

from __future__ import annotations

import dataclasses
import difflib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from tasks_app.sections import ConfigurationError

PREFIX = "SIGNALBOX_"
SECTIONS = ("TASKS", "WORKERS", "DISPATCH")
_BROKER_FILE = "broker-url"
ROOT = Path(__file__).resolve().parent.parent

#: Read by other parts than this one: crash points and clocks of the test harness.
FOREIGN = frozenset({"CRASH_DIR", "CLOCK_RATE", "CLOCK_ORIGIN", "REQUIRE_SERVERS"})


@dataclass(frozen=True)
class Config:
    """What a process needs to know before Django starts."""

    secret_key: str = ""
    signing_key: str = ""
    database_url: str = ""
    broker_url: str = ""
    cache_url: str = ""
    state_dir: Path = ROOT / "var"
    debug: bool = False
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    https: bool = False
    gateways: int = 0
    log_format: str = "human"
    log_level: str = "INFO"
    health_host: str = "127.0.0.1"
    health_port: int = 0
    imports: tuple[str, ...] = ()
    jobs_dir: Path | None = None
    database_pool: bool = False
    tracing: bool = False
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse values that nothing could be started with."""
        if self.log_format not in {"human", "json"}:
            raise ConfigurationError('SIGNALBOX_LOG_FORMAT must be "human" or "json"')
        if not 0 <= self.health_port <= 65535:
            raise ConfigurationError("SIGNALBOX_HEALTH_PORT must be 0 to 65535")
        if self.gateways < 0:
            raise ConfigurationError("SIGNALBOX_GATEWAYS must be 0 or more: how many stand before the web process")


def load(environment: Mapping[str, str]) -> Config:
    """The configuration that an environment describes. Raises ConfigurationError with the key and the cure."""
    hints = get_type_hints(Config)
    known = {f.name for f in dataclasses.fields(Config)} - {"sections"}
    values: dict[str, Any] = {}
    sections: dict[str, dict[str, str]] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX):
            continue
        key = variable.removeprefix(PREFIX)
        section, separator, option = key.partition("__")
        if separator and section in SECTIONS:
            sections.setdefault(section.lower(), {})[option.lower()] = text
        elif key.lower() in known:
            values[key.lower()] = parse(variable, text, hints[key.lower()])
        elif key not in FOREIGN:
            near = difflib.get_close_matches(key.lower(), known, n=1)
            hint = f'; did you mean "{PREFIX}{near[0].upper()}"?' if near else ""
            raise ConfigurationError(f'unknown variable "{variable}"{hint}')
    return Config(**values, sections=sections)


def section_values(config: Config, name: str, cls: type) -> dict[str, Any]:
    """A section's options from the environment, in the types that its dataclass declares; unknown ones stay texts."""
    hints = get_type_hints(cls)
    return {
        key: parse(f"{PREFIX}{name.upper()}__{key.upper()}", text, hints[key]) if key in hints else text
        for key, text in config.sections.get(name, {}).items()
    }


def parse(variable: str, text: str, kind: Any) -> Any:
    """A text from the environment as a value of the wanted type. Raises ConfigurationError."""
    name = str(kind)
    try:
        if kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        if kind is int or name == "int | None":
            return int(text)
        if kind is float:
            return float(text)
    except (KeyError, ValueError) as error:
        raise ConfigurationError(f"{variable}: {text!r} is not a {getattr(kind, '__name__', name)}") from error
    if "tuple" in name or "Sequence" in name:
        return tuple(word.strip() for word in text.split(",") if word.strip())
    if "Path" in name:
        return Path(text).resolve()
    return text


def local_secret(config: Config, name: str) -> str:
    """A secret of this installation, kept in the state folder with mode 0600; made at the first need."""
    folder = config.state_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{name}.secret"
    try:
        with open(path, "x", opener=_private) as file:
            file.write(secrets.token_urlsafe(48))
    except FileExistsError:
        pass
    return path.read_text().strip()


def broker_url(config: Config) -> str:
    """The configured broker, else the embedded one that `make run` started last in this state folder."""
    remembered = config.state_dir / _BROKER_FILE
    if config.broker_url or not remembered.exists():
        return config.broker_url or "redis://127.0.0.1:6390/0"
    return remembered.read_text().strip()


def remember_broker_url(config: Config, url: str) -> None:
    """Let commands in other terminals find the embedded broker; the file is private, since the URL has a password."""
    path = config.state_dir / _BROKER_FILE
    path.unlink(missing_ok=True)
    with open(path, "x", opener=_private) as file:
        file.write(url)


def _private(path: str, flags: int) -> int:
    import os

    return os.open(path, flags, 0o600)
