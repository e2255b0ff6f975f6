"""The judging model, out of the environment.

A job may choose the model and its parameters. It cannot choose where the key is sent: base_url and key are the operator's.
"""

import contextvars
import functools
import os
from dataclasses import dataclass
from typing import Any, Optional

import httpx
from emberd_plugin import Failure, spend
from phoenix.evals import LLM


@dataclass(frozen=True)
class Settings:
    provider: str
    base_url: Optional[str]
    api_key: Optional[str]
    model: Optional[str]
    timeout_seconds: float
    requests_per_second: float
    concurrent: int

    @classmethod
    def from_environment(cls) -> "Settings":
        get = os.environ.get
        return cls(
            provider=get("EMBERD_LLM_PROVIDER", "openai"),
            base_url=get("OPENAI_BASE_URL"),
            api_key=get("OPENAI_API_KEY"),
            model=get("EMBERD_LLM_MODEL"),
            timeout_seconds=float(get("EMBERD_LLM_TIMEOUT_SECONDS", "50")),
            requests_per_second=float(get("EMBERD_LLM_REQUESTS_PER_SECOND", "50")),
            concurrent=int(get("EMBERD_CONCURRENT", "16")),
        )

    def llm(self, model: Optional[str]) -> LLM:
        model = model or self.model
        if not model:
            raise Failure("config_error", "no model: neither in the configuration nor in EMBERD_LLM_MODEL")
        if self.provider == "openai" and not self.api_key:
            raise Failure("provider_auth", "OPENAI_API_KEY is not set")
        return _llm(self, model)

    def placeholder(self) -> LLM:
        """A model for `describe()`, which asks nothing."""
        return _llm(Settings("openai", "http://127.0.0.1:9/v1", "none", None, 1, 1, 1), "none")


@functools.lru_cache(maxsize=64)
def _llm(settings: Settings, model: str) -> LLM:
    # emberd decides about trying again; phoenix-evals makes its clients so that they do not.
    shared: dict[str, Any] = {"timeout": settings.timeout_seconds}
    if settings.api_key:
        shared["api_key"] = settings.api_key
    if settings.base_url:
        shared["base_url"] = settings.base_url
    client = httpx.AsyncClient(timeout=settings.timeout_seconds, event_hooks={"response": [_listen]})
    return LLM(
        provider=settings.provider,
        model=model,
        initial_per_second_request_rate=settings.requests_per_second,
        async_client_kwargs={"http_client": client} if settings.provider == "openai" else None,
        **shared,
    )


# What the provider said last in the evaluation at hand: `code` of its error, `retry_after` in seconds. phoenix-evals drops both.
heard: contextvars.ContextVar = contextvars.ContextVar("heard")


async def _listen(response: httpx.Response) -> None:
    """Scores do not say what they cost, nor limits how long they hold; the answers that they were made of do."""
    try:
        await response.aread()
        body = response.json()
        usage = body.get("usage") or {}
        prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        spend(prompt_tokens=int(prompt), completion_tokens=int(completion), model=str(body.get("model") or ""))
        said = heard.get({})
        said["code"] = (body.get("error") or {}).get("code")
        said["retry_after"] = float(response.headers.get("retry-after") or 0)
    except (ValueError, AttributeError, TypeError):
        pass
