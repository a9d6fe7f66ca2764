"""Tell another program of every new ticket: at least once, or the ticket says that it was not told.

The history's outbox holds what is to be told, written together with the ticket. A try is counted
before it is made and a delivery marked after its answer: a program that dies in between tells the
same ticket again, with the same id, by which the receiver drops the double.
"""

import asyncio
import hashlib
import hmac
import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

import httpx
import orjson

from assistant.history import Delivery, History, KeptTicket, NotFound, NotSaved, now
from assistant.settings import Settings

_DEADLINE_SECONDS = 5.0
_BEAT_SECONDS = 1.0
_AT_ONCE = 8
_LONGEST_WAIT = 3600
_MOST_TRIES = 36  # with the waits below about a day
_log = logging.getLogger(__name__)
# Its log lines give the whole address, which may hold a key.
logging.getLogger("httpx").setLevel(logging.WARNING)


class Webhook:
    """Post every new ticket to the address of the settings; does nothing without one."""

    def __init__(
        self, history: History, settings: Settings, clock: Callable[[], datetime] = now
    ) -> None:
        self._history, self._clock = history, clock
        self._url = settings.webhook_url or ""
        secret = settings.webhook_secret
        self._key = secret.get_secret_value().encode() if secret else b""
        safe = self._url.startswith("https:")  # to read the certificates takes a while
        self._trusted = httpx.create_ssl_context(trust_env=False) if safe else False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        """Begin to deliver, in a thread of its own."""
        if self._url:
            self._thread.start()

    def stop(self) -> None:
        """End after the tries that are under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2 * _DEADLINE_SECONDS)

    def retry(self, number: int) -> KeptTicket:
        """Make an undelivered ticket due again; raise NotFound when it has no delivery."""
        return self._history.redeliver(number)

    def deliver(self) -> int:
        """Try what is due once; return how many were received. Raises NotSaved."""
        tries = []
        for delivery in self._history.due(self._clock(), _AT_ONCE):
            with suppress(NotFound):  # forgotten meanwhile, and its delivery with it
                ticket = self._history.ticket(delivery.number)
                self._history.trying(delivery, self._clock() + _wait(delivery.tries))
                tries.append((delivery, orjson.dumps(_payload(ticket, delivery))))
        errors = asyncio.run(self._post_all(tries)) if tries else []
        for (delivery, _), error in zip(tries, errors, strict=True):
            if error:
                _log.warning("ticket %d was not delivered: %s", delivery.number, error)
                last = delivery.tries + 1 >= _MOST_TRIES
                self._history.failed(delivery, error, last)
            else:
                self._history.delivered(delivery)
        return errors.count("")

    def _run(self) -> None:
        while not self._stopping.wait(_BEAT_SECONDS):
            try:
                self.deliver()
            except NotSaved as error:
                _log.info("the webhook waits for the history: %s", error.reason)
            except Exception:  # the thread must outlive whatever a library raises
                _log.exception("the webhook failed")

    async def _post_all(self, tries: list[tuple[Delivery, bytes]]) -> list[str]:
        # The address of the settings alone: no proxy or password from the environment.
        async with httpx.AsyncClient(
            trust_env=False, verify=self._trusted, timeout=_DEADLINE_SECONDS
        ) as client:
            return await asyncio.gather(*(self._post(client, *one) for one in tries))

    async def _post(self, client: httpx.AsyncClient, delivery: Delivery, body: bytes) -> str:
        """Post a body; return what went wrong, "" when it was received."""
        headers = self._signed(body) | {
            "Content-Type": "application/json",
            "X-Assistant-Delivery": delivery.id,
        }
        try:
            async with (
                asyncio.timeout(_DEADLINE_SECONDS),
                client.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                return "" if response.is_success else f"answered {response.status_code}"
        except TimeoutError:
            return f"no answer within {_DEADLINE_SECONDS:.0f} seconds"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__

    def _signed(self, body: bytes) -> dict[str, str]:
        """Return the headers by which the receiver knows the sender, and how old this is."""
        stamp = str(int(self._clock().timestamp()))
        if not self._key:
            return {"X-Assistant-Timestamp": stamp}
        signature = hmac.new(self._key, f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        return {"X-Assistant-Timestamp": stamp, "X-Assistant-Signature": f"sha256={signature}"}


def _wait(tries: int) -> timedelta:
    """Return how long to wait for the next try: doubled each time, up to an hour, with jitter."""
    return timedelta(seconds=min(2.0 ** (tries + 1), _LONGEST_WAIT) * random.uniform(0.75, 1.0))


def _payload(ticket: KeptTicket, delivery: Delivery) -> dict[str, object]:
    return {
        "event": "ticket",
        "delivery": delivery.id,
        "number": ticket.number,
        "state": ticket.state,
        "reason": ticket.reason,
        "urgent": ticket.urgent,
        "question": ticket.question,
        "language": ticket.language,
        "reply_to": ticket.reply_to,
        "packet": ticket.packet,
        "created": ticket.created,
        "link": f"/agent/tickets/{ticket.number}",
    }
