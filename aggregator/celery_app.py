"""Wires the worker: which jobs there are, how often beat asks for them, and how they are run.

Messages are hints. Every job derives its work from Postgres, stands being run twice or at the same
time as itself, and is asked for again by beat, so a lost or repeated message changes nothing.

    celery -A aggregator.celery_app:app worker --beat --schedule STATE/beat

Deliveries of webhooks have a queue and a process of their own, which that worker starts beside it
(`aggregator.jobs.beside`): a receiver that hangs delays no other job.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

from celery import Celery
from celery.signals import after_setup_logger, worker_process_init, worker_ready
from sqlalchemy import Engine

import aggregator.alerts.tasks
import aggregator.fleet.tasks
import aggregator.profiles.tasks
import aggregator.symbols.tasks
from aggregator.alerts.signature import secret_key
from aggregator.broker import screen_broker
from aggregator.broker_url import REMEDY, open_to_strangers
from aggregator.config import CentreConfig, load_config
from aggregator.db import create_sync_database, session_scope
from aggregator.errors import AggregatorError
from aggregator.jobs.beside import deliveries_beside
from aggregator.jobs.service import add_dropped
from aggregator.log import make_safe

QUEUE = "flamefleet"
DELIVERIES = "flamefleet.deliveries"
TIME_LIMIT_S = 600  # a job that hangs is killed and asked for again
# Their lines about every message sent, received and done would be 50,000 a day.
_CHATTY = ("celery.beat", "celery.worker.strategy", "celery.app.trace")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A task that beat asks for `every_s` seconds. `run` returns how much it did, for the log.

    When it did something, the job named `then` is asked for at once, after the commit. The queue is
    the one of the processes that do it.
    """

    name: str
    every_s: float
    run: Callable[[Engine, CentreConfig], int]
    then: str | None = None
    queue: str = QUEUE


JOBS = (
    Job("profiles.compact", 10, aggregator.profiles.tasks.compact_minutes),
    Job("profiles.make_partitions", 600, aggregator.profiles.tasks.make_partitions_ahead),
    Job("profiles.drop_partitions", 600, aggregator.profiles.tasks.drop_old_partitions),
    Job("fleet.drop_events", 600, aggregator.fleet.tasks.drop_old_events),
    Job("fleet.forget_nodes", 600, aggregator.fleet.tasks.forget_nodes),
    Job("symbols.symbolize", 10, aggregator.symbols.tasks.symbolize_pending),
    Job("alerts.evaluate", 15, aggregator.alerts.tasks.evaluate, then="alerts.deliver"),
    Job("alerts.deliver", 15, aggregator.alerts.tasks.deliver, queue=DELIVERIES),
)


def create_celery(config: CentreConfig, queue: str = QUEUE, beside: bool = True) -> Celery:
    """The Celery application of beat and of a worker of `queue`. Connects to nothing yet.

    With `beside` a worker of QUEUE starts one of DELIVERIES with it. Raises SecretError for a
    webhook whose secret cannot be read: better than at the first alert.
    """
    for webhook in config.webhooks:
        secret_key(webhook.secret)
    screen_broker({job.name for job in JOBS})
    app = Celery("flamefleet", broker=config.broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=queue,
        task_routes={job.name: {"queue": job.queue} for job in JOBS},
        task_time_limit=TIME_LIMIT_S,
        worker_prefetch_multiplier=1,
        worker_consumer="aggregator.jobs.consumer:Consumer",
        worker_enable_remote_control=False,
        broker_channel_error_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        timezone="UTC",
        beat_schedule={
            # A message that waited as long as the next one takes to come is of no use.
            job.name: {
                "task": job.name,
                "schedule": job.every_s,
                "options": {"expires": job.every_s},
            }
            for job in JOBS
        },
    )
    app.amqp.queues.select([queue])  # and none that it sends to
    for logger in _CHATTY:
        logging.getLogger(logger).setLevel(logging.WARNING)
    databases = _Databases(config)
    for job in JOBS:
        _add_task(app, job, databases, config)
    worker_process_init.connect(databases.forget, weak=False)
    after_setup_logger.connect(_make_log_safe, weak=False)
    worker_ready.connect(partial(_ask_for_all, app, queue), weak=False)
    if queue == QUEUE:
        worker_ready.connect(partial(_warn_of_strangers, config.broker_url), weak=False)
    if beside and queue == QUEUE:
        app.steps["worker"].add(deliveries_beside(config))
    return app


def _add_task(app: Celery, job: Job, databases: "_Databases", config: CentreConfig) -> None:
    # Not shared: each application runs the jobs with its own configuration.
    @app.task(name=job.name, shared=False)  # type: ignore[untyped-decorator]  # celery has no types
    def run(dropped: dict[str, int] | None = None) -> None:
        _run(app, job, databases, config, dropped)


class _Databases:
    """The engine of this process, made on first use: connections don't outlive a fork."""

    def __init__(self, config: CentreConfig) -> None:
        self._config = config
        self._engine: Engine | None = None
        self._lock = Lock()  # jobs may be threads

    def get(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = create_sync_database(self._config.database_url)
            return self._engine

    def forget(self, **_: Any) -> None:
        if self._engine is not None:
            self._engine.dispose(close=False)
            self._engine = None


def _run(
    app: Celery,
    job: Job,
    databases: _Databases,
    config: CentreConfig,
    dropped: dict[str, int] | None,
) -> None:
    try:
        if dropped:
            with session_scope(databases.get()) as session:
                add_dropped(session, dropped)
        done = job.run(databases.get(), config)
    except AggregatorError as error:
        # One line, not a traceback every ten seconds while Postgres is away.
        _log.error("%s failed and is asked for again in %g s: %s", job.name, job.every_s, error)
        return
    if done:
        _log.info("%s: %d", job.name, done)
        if job.then is not None:
            app.send_task(job.then)


def _ask_for_all(app: Celery, queue: str, sender: Any, **_: Any) -> None:
    """Beat first sends a job after its interval; a started worker needn't wait for that."""
    if sender.app is not app:
        return
    for job in JOBS:
        if job.queue == queue:
            app.send_task(job.name, expires=job.every_s)


def _make_log_safe(logger: logging.Logger, format: str, **_: Any) -> None:
    make_safe(logger, format)


def _warn_of_strangers(broker_url: str, **_: Any) -> None:
    why = open_to_strangers(broker_url)
    if why:
        _log.warning("%s: %s", why, REMEDY)


def __getattr__(name: str) -> Any:
    """`app`, made from file and environment when it is first asked for (by the celery command)."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    app = create_celery(load_config(environ=os.environ))
    globals()["app"] = app
    return app
