"""What is in the outboxes leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from cronrunner import Option, fleet_outbox, job
from jobs.delivery import Delivery, step_of
from jobs.schema import outbox

if TYPE_CHECKING:
    from cronrunner import JobContext

OPTIONS: Final = {
    "limit": Option(200, minimum=1, help="messages of one run and outbox"),
    "lease_s": Option(
        120, minimum=60, help="seconds after which a message that was cut off is sent again"
    ),
    "max_attempts": Option(5, minimum=1, help="tries before a message is dead"),
    "timeout_s": Option(10, minimum=1, maximum=30, help="seconds to wait for a server to answer"),
    "email_per_minute": Option(600, minimum=1, help="e-mails a minute, of all tenants"),
    "slack_per_minute": Option(60, minimum=1, help="posts to Slack a minute, of all tenants"),
    "webhook_per_minute": Option(300, minimum=1, help="webhooks a minute, of all tenants"),
    "email_transport": Option(
        "file",
        choices=("file", "smtp", "fake"),
        environment="EMAIL_TRANSPORT",
        help="how e-mail leaves",
    ),
    "slack_transport": Option(
        "file",
        choices=("file", "slack", "fake"),
        environment="SLACK_TRANSPORT",
        help="how posts to Slack leave",
    ),
    "webhook_transport": Option(
        "file",
        choices=("file", "webhook", "fake"),
        environment="WEBHOOK_TRANSPORT",
        help="how webhooks leave",
    ),
    "folder": Option(
        "var/outbox",
        environment="OUTBOX_FOLDER",
        help="where the transport `file` writes; relative to where cronrunner was started",
    ),
    "mail_from": Option("", environment="MAIL_FROM", help="the sender of all e-mail"),
    "smtp_host": Option("", environment="SMTP_HOST", help="the mail server"),
    "smtp_port": Option(587, minimum=1, maximum=65535, environment="SMTP_PORT", help="its port"),
    "smtp_tls": Option(
        "starttls",
        choices=("starttls", "implicit", "off"),
        environment="SMTP_TLS",
        help="how it speaks TLS; `implicit` as a rule on port 465",
    ),
    "smtp_ca": Option("", environment="SMTP_CA", help="file of the CA that has signed for it"),
    "smtp_user": Option("", environment="SMTP_USER", help="who logs in; nobody if empty"),
    "webhook_secret_env": Option(
        "WEBHOOK_SECRET", help="the variable that holds the secret which webhooks are signed with"
    ),
}


@job(
    schedule="*/5 * * * *",
    retries=2,
    transaction="none",
    effects="repeatable",
    options=OPTIONS,
)
def deliver(ctx: JobContext) -> Mapping[str, int]:
    """Send the messages of the outbox that are due.

    Each message is sent at least once, always under the same id (its tenant and dedupe key: the
    Message-ID of a mail, the Idempotency-Key of a post). What fails is tried again after 1, 4, 16
    and 60 minutes, and is dead after the last try, with the reason in its row; what the server
    refuses for good is dead at once. A server that answers 429 or says nothing pauses its channel
    for all tenants, and no other channel. Secrets come from the environment alone:
    ``SMTP_PASSWORD`` and ``WEBHOOK_SECRET``, or the file that ``SMTP_PASSWORD_FILE`` or
    ``WEBHOOK_SECRET_FILE`` names. Webhooks are signed as https://www.standardwebhooks.com/ says.

    From: OpsDeck: communications queue

    Counters:
      sent: messages that a server has taken
      retried: messages that failed and will be tried again
      dead: messages that are given up
      throttled: messages for which a server asked to wait
      deferred: messages left to a later run: no permit, a paused channel, or no time
      errors: channels that are not set up as they must be
    """
    return Delivery(ctx, outbox, step_of(ctx)).run()


@job(
    schedule="*/5 * * * *",
    retries=2,
    scope="fleet",
    transaction="none",
    effects="repeatable",
    options=OPTIONS,
)
def deliver_fleet(ctx: JobContext) -> Mapping[str, int]:
    """Send the messages of the fleet's own outbox that are due.

    As ``comms.deliver`` does for each tenant, and within the same limits.

    From: OpsDeck: communications queue

    Counters:
      sent: messages that a server has taken
      retried: messages that failed and will be tried again
      dead: messages that are given up
      throttled: messages for which a server asked to wait
      deferred: messages left to a later run: no permit, a paused channel, or no time
      errors: channels that are not set up as they must be
    """
    return Delivery(ctx, fleet_outbox, step_of(ctx)).run()
