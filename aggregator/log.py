"""Log lines of the centre: foreign names cannot drive a terminal, nor look like lines of ours."""

import logging

from wire.terminal import printable, printable_line

SERVER_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class SafeFormatter(logging.Formatter):
    """Escapes what a terminal would obey; a message is one line, its traceback more."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable_line(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def make_safe(logger: logging.Logger, form: str = SERVER_FORMAT) -> None:
    """Have all handlers of `logger` write lines of `form` that are safe."""
    for handler in logger.handlers:
        handler.setFormatter(SafeFormatter(form))
