"""Table of what the worker dropped."""

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from aggregator.db import Model


class DroppedMessages(Model):
    """Foreign content of the broker that the workers dropped, by reason (`jobs.hints`)."""

    __tablename__ = "dropped_messages"

    reason: Mapped[str] = mapped_column(Text, primary_key=True)
    messages: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=text("now()"))
