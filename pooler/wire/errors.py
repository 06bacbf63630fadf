"""Errors that a client may see, as PostgreSQL says them.

``ErrorResponse`` in "Message Formats", its fields in "Error and Notice Message Fields", the codes
in appendix A, "PostgreSQL Error Codes".
"""

from __future__ import annotations

from typing import Self

PROTOCOL_VIOLATION = "08P01"
FEATURE_NOT_SUPPORTED = "0A000"
INVALID_AUTHORIZATION = "28000"
INVALID_PASSWORD = "28P01"


class PostgresError(Exception):
    """An ErrorResponse: raised where the cause is known, sent where the client is.

    ``severity`` is ERROR, FATAL (the connection ends) or PANIC; ``sqlstate`` five characters.
    """

    def __init__(
        self,
        severity: str,
        sqlstate: str,
        message: str,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(severity, sqlstate, message, detail, hint)
        self.severity = severity
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint

    @classmethod
    def violation(cls, message: str, detail: str | None = None) -> Self:
        """The other side broke the protocol: FATAL, 08P01."""
        return cls("FATAL", PROTOCOL_VIOLATION, message, detail)

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.severity} {self.sqlstate}: {self.message}{detail}"

    def to_bytes(self) -> bytes:
        """The whole ErrorResponse message."""
        fields = {
            "S": self.severity,
            "V": self.severity,
            "C": self.sqlstate,
            "M": self.message,
            "D": self.detail,
            "H": self.hint,
        }
        return b"E" + fields_body({code: text for code, text in fields.items() if text})


def fields_body(fields: dict[str, str]) -> bytes:
    """Length and body of an ErrorResponse or NoticeResponse. NUL cannot be sent: it is left out."""
    body = "".join(f"{code}{text.replace(chr(0), '')}\0" for code, text in fields.items()) + "\0"
    encoded = body.encode("utf-8", "surrogateescape")
    return (len(encoded) + 4).to_bytes(4, "big") + encoded
