"""What ModelScope and its client report, sorted: another try, or one line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buddygpt.publishing.secrets import redact
from buddygpt.recipe.errors import BrokenOff, BuddyError

if TYPE_CHECKING:
    from modelscope_hub import HubConfig

AGAIN = "what has arrived stays there: run the same command again"
_LONGEST = 60.0
"""Seconds that the hub may ask to be left alone before the push gives up."""
_FULL = ("quota", "insufficient storage", "配额", "空间不足", "容量")


def pause_before(error: Exception, wait: float | None) -> float | None:
    """Seconds until another try; None where it would be in vain.

    Args:
        error: what the last one raised.
        wait: seconds that the next one has to wait at least; None where it was the last.
    """
    from modelscope_hub._upload import _is_retryable_commit_error
    from modelscope_hub.errors import HubError

    passing = _is_retryable_commit_error(error) if isinstance(error, HubError) else isinstance(error, OSError)
    if wait is None or not passing or _is_unknown(error) or _is_full(error):
        return None
    asked = float(getattr(error, "retry_after", None) or 0)
    return max(wait, asked) if asked <= _LONGEST else None


def tell_fault(error: Exception, what: str, config: HubConfig) -> BuddyError:
    """The fault in one line, with what to do; the client's own words may hold addresses and whole answers.

    Args:
        error: the client's.
        what: what the hub was asked to do.
        config: the client's, with the hub's address and the token, which is not told.
    """
    from modelscope_hub.errors import APIError, HubError, PermissionDeniedError, RequestTimeoutError

    tokens = f"{config.endpoint}/my/myaccesstoken"
    if _is_full(error):
        return BuddyError(f"modelscope: no room is left to {what}: free some at {config.endpoint}/my; {AGAIN}")
    if _is_unknown(error):
        source = "MODELSCOPE_API_TOKEN" if config._token_overridden else "`modelscope login`"
        return BuddyError(f"modelscope: it does not know the token of {source}: make one at {tokens} and log in anew")
    if isinstance(error, PermissionDeniedError):
        return BuddyError(
            f"modelscope: with this token it does not {what}: the token must be one that may write (see {tokens}), "
            "and its account one that may in this repository"
        )
    if isinstance(error, APIError):
        status = f" (status {error.status_code})" if error.status_code else ""
        words = _words(error)
        if error.retryable:
            return BrokenOff(f"modelscope: it cannot {what} now{status}{words}; {AGAIN}")
        return BuddyError(f"modelscope: it refuses to {what}{status}{words}")
    if isinstance(error, RequestTimeoutError):
        return BrokenOff(f"modelscope: no answer in time when asked to {what}; {AGAIN}")
    if isinstance(error, HubError | OSError):
        return BrokenOff(f"modelscope: no connection, or it broke, when asked to {what}; {AGAIN}")
    return BrokenOff(f"modelscope: {config.endpoint} does not answer as ModelScope does when asked to {what}; {AGAIN}")


def is_missing(error: Exception) -> bool:
    """Whether what was asked for is not there, or not to be seen with this token."""
    from modelscope_hub.errors import NotExistError

    return isinstance(error, NotExistError) or "does not exist" in str(getattr(error, "message", "")).lower()


def _is_unknown(error: Exception) -> bool:
    """Whether it is the token: ModelScope tells so with status 401, with codes of its own, or in words with 400."""
    from modelscope_hub.errors import AuthenticationError

    return isinstance(error, AuthenticationError) or "not logged in" in str(getattr(error, "message", "")).lower()


def _is_full(error: Exception) -> bool:
    from modelscope_hub.errors import QuotaExceededError

    told = f"{getattr(error, 'message', '')} {getattr(error, 'response_body', '')}".lower()
    status = getattr(error, "status_code", None)
    return isinstance(error, QuotaExceededError) or status == 507 or any(word in told for word in _FULL)


def _words(error: Exception) -> str:
    """What the hub says of it, unless that is a page of markup, holds an address or is the client's own word."""
    words = redact(" ".join(str(getattr(error, "message", "")).split()))
    fit = 0 < len(words) <= 160 and "://" not in words and not words.startswith(("<", "HTTP "))
    return f": {words}" if fit else ""
