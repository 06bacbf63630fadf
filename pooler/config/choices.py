"""The settings that are a choice of words. Alone in a module that imports nothing heavy."""

from typing import Literal, get_args

Backend = Literal["auto", "io_uring", "kqueue", "epoll"]
Scheduling = Literal["batch", "normal"]
Mode = Literal["session", "transaction", "statement", "passthrough"]
Pins = Literal["allow", "refuse"]
AuthMethod = Literal["trust", "password", "md5", "scram-sha-256"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "text", "json"]

BACKENDS: tuple[Backend, ...] = get_args(Backend)
LOG_LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)
LOG_FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)
