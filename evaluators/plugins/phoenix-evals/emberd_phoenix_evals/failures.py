"""What an exception of a metric means to emberd: a class (docs/plugins.md) and a sentence.

phoenix-evals raises what happened, wrapped or not: so the whole chain of causes is looked at, and the first known one decides.
"""

import json
from typing import Iterator, Optional

from emberd_plugin import Failure
from phoenix.evals.rate_limiters import RateLimitError

# As long as phoenix-evals' own limiter holds all requests back after a 429.
COOLDOWN_MS = 5000


def failure_of(error: BaseException, said: dict) -> Failure:
    """`said` is what the provider said last: its error's `code`, and `retry_after`."""
    # What the provider said, wherever in the chain, says more than who passed it on.
    for cause in _chain(error):
        if known := _provider(cause, said):
            return known
    for cause in _chain(error):
        if known := _own(cause):
            return known
    return Failure("plugin_fault", f"{type(error).__name__}: {error}")


def _chain(error: Optional[BaseException]) -> Iterator[BaseException]:
    seen: set = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _provider(error: BaseException, said: dict) -> Optional[Failure]:
    """By names and attributes, not types: other providers' libraries have them too."""
    name, status = type(error).__name__, getattr(error, "status_code", None)
    code = getattr(error, "code", None)
    text = f"{name}: {error}"
    if isinstance(error, RateLimitError) or status == 429:
        quota = "insufficient_quota" in (code, said.get("code"))
        wait_ms = max(COOLDOWN_MS, int(1000 * said.get("retry_after", 0)))
        return Failure("provider_quota" if quota else "provider_rate", text, wait_ms)
    if name in ("APITimeoutError", "TimeoutException", "ReadTimeout", "ConnectTimeout"):
        return Failure("timeout", text)
    if status in (401, 403):
        return Failure("provider_auth", text)
    if code == "content_filter" or name == "ContentFilterFinishReasonError":
        return Failure("content_filter", text)
    if name == "LengthFinishReasonError":
        return Failure("truncated", text)
    if code in ("context_length_exceeded", "string_above_max_length") or status == 413:
        return Failure("too_large", text)
    if isinstance(status, int) and status >= 500 or name == "APIConnectionError":
        return Failure("provider_5xx", text)
    if isinstance(status, int) and status >= 400:
        return Failure("config_error", text)
    return None


def _own(error: BaseException) -> Optional[Failure]:
    text = str(error)
    if isinstance(error, json.JSONDecodeError):
        return Failure("parse", "the model's answer is not JSON")
    if isinstance(error, KeyError) and text.strip("'") in ("label", "explanation"):
        return Failure("parse", f"the model's answer has no {text}")
    if not isinstance(error, ValueError):
        return None
    if "Path not found" in text or "Missing required field" in text:
        return Failure("missing_field", text)
    if "Input validation failed" in text:
        return Failure("missing_field" if "Field required" in text else "invalid_field", text.split("\n")[0])
    if "invalid label" in text or "No tool calls" in text or "no content" in text or "missing a label" in text:
        return Failure("parse", text)
    return Failure("invalid_field", f"{type(error).__name__}: {text}")
