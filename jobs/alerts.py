"""What is about to expire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cronrunner import job
from jobs import expiry

if TYPE_CHECKING:
    from cronrunner import JobContext


@job(schedule="0 6 * * *", retries=2, options=expiry.options(30, 14, 7, 1))
def subscriptions(ctx: JobContext) -> Mapping[str, int]:
    """Tell the owners of subscriptions that a renewal or an end comes near.

    A subscription is alerted once for each threshold that its remaining days have come down to,
    and once more when it has ended without renewing itself. Days are the tenant's own. Days
    left up to 1 are critical, up to 7 high, up to 14 medium, and the rest low; what renews
    itself is always low. The owner is told, or the administrators if the owner is not active or
    has no usable address. When there is nobody at all it is tried again on the next day. One
    without a date cannot be done.

    Counters:
      checked: subscriptions that are not cancelled
      alerted: subscriptions that were alerted
      expired: those among the alerted that have ended
      no_recipient: subscriptions that should be alerted, and nobody is there
      too_old: subscriptions that ended too long ago
      errors: subscriptions that could not be done

    From: OpsDeck: subscription renewal check
    """
    return expiry.alert_expiring(ctx, "subscription")


@job(schedule="5 6 * * *", retries=2, options=expiry.options(30, 14, 7, 3, 1, 0))
def credentials(ctx: JobContext) -> Mapping[str, int]:
    """Tell the owners of credentials that they expire soon.

    Works as for subscriptions, on the day of the end as well; a credential that has ended is
    alerted once more even if it is said to renew itself.

    Counters:
      checked: credentials that are not cancelled
      alerted: credentials that were alerted
      expired: those among the alerted that have ended
      no_recipient: credentials that should be alerted, and nobody is there
      too_old: credentials that ended too long ago
      errors: credentials that could not be done

    From: OpsDeck: credential expiry check
    """
    return expiry.alert_expiring(ctx, "credential")


@job(schedule="10 6 * * *", retries=2, options=expiry.options(60, 30, 14, 7, 3, 1, 0))
def certificates(ctx: JobContext) -> Mapping[str, int]:
    """Tell the owners of certificates that they expire soon.

    Works as for subscriptions, on the day of the end as well; a certificate that has ended is
    alerted once more even if it is said to renew itself.

    Counters:
      checked: certificates that are not cancelled
      alerted: certificates that were alerted
      expired: those among the alerted that have ended
      no_recipient: certificates that should be alerted, and nobody is there
      too_old: certificates that ended too long ago
      errors: certificates that could not be done

    From: OpsDeck: certificate expiry check
    """
    return expiry.alert_expiring(ctx, "certificate")
