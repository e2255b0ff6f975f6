"""The contract's messages, and the words for them.

Messages are built from `contract.binpb`, the compiled `.proto` that lies beside this file: there is no generated code to keep in step
with a version of protobuf. A test of emberd's keeps the file in step with the `.proto`.
"""

import json
import math
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Optional

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

CONTRACT = 1
SERVICE = "emberd.evaluator.v1.Evaluator"


def _messages() -> dict[str, type]:
    described = descriptor_pb2.FileDescriptorSet.FromString(files(__package__).joinpath("contract.binpb").read_bytes())
    # A pool of its own: nobody else's messages of that name are in the way.
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.Add(file)
    return message_factory.GetMessageClassesForFiles([file.name for file in described.file], pool)


_classes = _messages()


def message(name: str) -> type:
    """The class of a message, by its name in the `.proto`."""
    return _classes[f"emberd.evaluator.v1.{name}"]


KINDS = {"code": 1, "heuristic": 1, "llm": 2}
DIRECTIONS = {"maximize": 1, "minimize": 2, "neutral": 3}


class Failure(Exception):
    """Why there is no score: one of emberd's classes (docs/plugins.md) and a sentence."""

    def __init__(self, class_: str, message: str, retry_after_ms: Optional[int] = None):
        super().__init__(message)
        self.class_, self.message, self.retry_after_ms = class_, message, retry_after_ms


@dataclass
class Score:
    """A judgement: a number, a label, or both."""

    score: Optional[float] = None
    label: Optional[str] = None
    explanation: Optional[str] = None
    name: str = ""
    metadata: dict = field(default_factory=dict)

    def to_wire(self) -> Any:
        if self.score is not None and not math.isfinite(self.score):
            raise Failure("plugin_fault", f"score {self.name!r} is not a finite number")
        wire = message("Score")(name=self.name)
        if self.score is not None:
            wire.score = self.score
        if self.label is not None:
            wire.label = self.label
        if self.explanation is not None:
            wire.explanation = self.explanation
        if self.metadata:
            wire.metadata_json = json.dumps(self.metadata, default=str)
        return wire


@dataclass
class Output:
    """What an evaluator declares of a score."""

    name: str
    direction: str = "maximize"
    min: Optional[float] = None
    max: Optional[float] = None
    labels: tuple = ()

    def to_wire(self) -> Any:
        wire = message("Output")(name=self.name, direction=DIRECTIONS[self.direction], labels=list(self.labels))
        if self.min is not None:
            wire.min = self.min
        if self.max is not None:
            wire.max = self.max
        return wire


@dataclass
class Key:
    """A key of an evaluator's configuration; without a default it must be given."""

    name: str
    summary: str = ""
    default: Any = ...

    def to_wire(self) -> Any:
        wire = message("ConfigKey")(name=self.name, summary=self.summary)
        if self.default is not ...:
            wire.default_json = json.dumps(self.default)
        return wire
