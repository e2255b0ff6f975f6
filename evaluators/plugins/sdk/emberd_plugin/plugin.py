"""A plugin: its evaluators, and the server that emberd talks to."""

import asyncio
import contextlib
import contextvars
import inspect
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Optional

import grpc

from .contract import CONTRACT, KINDS, SERVICE, Failure, Key, Output, Score, message

# As large as emberd's own limit allows, by default.
MESSAGE_BYTES = 64 << 20
# A plugin hands in its results this long before emberd stops waiting.
SPARE_SECONDS = 1.5


_cost: contextvars.ContextVar = contextvars.ContextVar("cost")


def spend(*, prompt_tokens: int = 0, completion_tokens: int = 0, usd: float = 0.0, model: str = "") -> None:
    """Says what the evaluation at hand has used up, from anywhere inside it. Several times is added up."""
    cost = _cost.get(None)
    if cost is None:
        return
    cost.prompt_tokens += prompt_tokens
    cost.completion_tokens += completion_tokens
    if usd:
        cost.usd += usd
    cost.model = model or cost.model


@dataclass
class Evaluator:
    """An evaluator as it is served: what it says of itself, and a coroutine function of (fields, config)."""

    name: str
    version: str
    kind: str
    summary: str
    fields: list  # of (name, required, summary, paths)
    outputs: list  # of Output
    config: list  # of Key
    judge: Callable[[dict, dict], Awaitable[list]]
    examples_max: int = 0

    def to_wire(self) -> Any:
        field = message("Field")
        fields = [field(name=n, required=r, summary=s, paths=p) for n, r, s, p in self.fields]
        return message("Description")(
            name=self.name,
            version=self.version,
            kind=KINDS[self.kind],
            summary=self.summary,
            fields=fields,
            outputs=[output.to_wire() for output in self.outputs],
            config=[key.to_wire() for key in self.config],
            limits=message("Limits")(batch_examples_max=self.examples_max),
        )


def _scores(given: Any) -> list:
    if isinstance(given, bool):
        return [Score(float(given), str(given).lower())]
    if isinstance(given, (int, float)):
        return [Score(float(given))]
    if isinstance(given, str):
        return [Score(label=given)]
    return list(given) if isinstance(given, (list, tuple)) else [given]


class Plugin:
    """Evaluators under a common name. `concurrent` examples are judged at once."""

    def __init__(self, name: str, concurrent: int = 16):
        self.name = name
        self.evaluators: dict[str, Evaluator] = {}
        self._places = asyncio.Semaphore(concurrent)

    def add(self, evaluator: Evaluator) -> None:
        self.evaluators[evaluator.name] = evaluator

    def evaluator(self, *, name: Optional[str] = None, version: str, kind: str = "code", direction: str = "maximize",
                  min: Optional[float] = None, max: Optional[float] = None, labels: tuple = (),
                  outputs: Optional[list] = None, paths: Optional[dict] = None) -> Callable:
        """Makes a function an evaluator. Change `version` whenever the same example may get another score."""

        def register(function: Callable) -> Callable:
            called = name or function.__name__
            fields, config = [], []
            for parameter in inspect.signature(function).parameters.values():
                given = parameter.default is not parameter.empty
                if parameter.kind is parameter.KEYWORD_ONLY:
                    config.append(Key(parameter.name, default=parameter.default if given else ...))
                else:
                    fields.append((parameter.name, not given, "", (paths or {}).get(parameter.name, [])))

            async def judge(values: dict, configured: dict) -> list:
                if inspect.iscoroutinefunction(function):
                    return _scores(await function(**values, **configured))
                return _scores(await asyncio.to_thread(function, **values, **configured))

            declared = outputs or [Output(called, direction, min, max, labels)]
            self.add(Evaluator(called, version, kind, inspect.getdoc(function) or "", fields, declared, config, judge))
            return function

        return register

    # --- the service

    async def _describe(self, request: Any, context: Any) -> Any:
        described = [evaluator.to_wire() for evaluator in self.evaluators.values()]
        return message("DescribeResponse")(contract=CONTRACT, plugin=self.name, evaluators=described)

    async def _evaluate(self, requests: Any, context: Any) -> Any:
        """Each example is a task; results leave in the order in which they are known."""
        results: asyncio.Queue = asyncio.Queue()
        tasks: set = set()

        async def take_in() -> None:
            async for request in requests:
                evaluator = self.evaluators.get(request.evaluator)
                config = json.loads(request.config_json or "{}")
                for example in request.examples:
                    task = asyncio.create_task(self._judge(evaluator, config, example, context, results))
                    tasks.add(task)
            await asyncio.gather(*tasks)

        reader = asyncio.create_task(take_in())
        reader.add_done_callback(lambda _: results.put_nowait(None))
        try:
            while (result := await results.get()) is not None:
                yield message("EvaluateResponse")(results=[result])
            await reader
        finally:
            # emberd has gone away, or has heard enough: nobody needs what is still being judged.
            for task in (reader, *tasks):
                task.cancel()

    async def _judge(self, evaluator: Optional[Evaluator], config: dict, example: Any, context: Any,
                     results: asyncio.Queue) -> None:
        result = message("Result")(id=example.id)
        cost = message("Cost")()
        _cost.set(cost)
        try:
            if evaluator is None:
                raise Failure("config_error", "this plugin has no such evaluator")
            if example.example_json:
                values = {"example": json.loads(example.example_json)}
            else:
                values = {name: json.loads(text) for name, text in example.fields_json.items()}
            left = context.time_remaining()
            async with self._places, asyncio.timeout(None if left is None else max(left - SPARE_SECONDS, 0.1)):
                scores = await evaluator.judge(values, config)
            result.scores.scores.extend([score.to_wire() for score in scores])
        except Failure as failure:
            result.error.CopyFrom(_error(failure.class_, failure.message, failure.retry_after_ms))
        except TimeoutError:
            result.error.CopyFrom(_error("timeout", "not judged in time"))
        except Exception as error:  # one example's trouble is its own
            result.error.CopyFrom(_error("plugin_fault", f"{type(error).__name__}: {error}"))
        if cost.ByteSize():
            result.cost.CopyFrom(cost)
        results.put_nowait(result)

    # --- the server

    async def run(self) -> None:
        """Serves until SIGTERM. emberd says where: EMBERD_PLUGIN_SOCKET; without emberd, `python3 plugin.py 127.0.0.1:50051`."""
        describe, evaluate = message("DescribeRequest"), message("EvaluateRequest")
        handlers = {
            "Describe": grpc.unary_unary_rpc_method_handler(
                self._describe, describe.FromString, message("DescribeResponse").SerializeToString),
            "Evaluate": grpc.stream_stream_rpc_method_handler(
                self._evaluate, evaluate.FromString, message("EvaluateResponse").SerializeToString),
        }
        server = grpc.aio.server(options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
        ])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        socket = os.environ.get("EMBERD_PLUGIN_SOCKET")
        address = f"unix:{socket}" if socket else next(iter(sys.argv[1:]), "127.0.0.1:50051")
        server.add_insecure_port(address)
        await server.start()
        print(f"{self.name}: {len(self.evaluators)} evaluators at {address}", file=sys.stderr, flush=True)
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()
        await server.stop(grace=1)

    def serve(self) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(self.run())


def _error(class_: str, text: str, retry_after_ms: Optional[int] = None) -> Any:
    error = message("Error")(**{"class": class_}, message=text[:1000])
    if retry_after_ms is not None:
        error.retry_after_ms = retry_after_ms
    return error
