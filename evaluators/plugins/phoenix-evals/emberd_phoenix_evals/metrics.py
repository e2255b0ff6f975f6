"""Which metrics there are, and how each is asked. Names, kinds, directions and fields come out of the metrics' own `describe()`."""

import functools
import importlib.metadata
import json
import re
import warnings
from typing import Any, Callable, Iterator

from emberd_plugin import Evaluator, Failure, Key, Output, Score
from phoenix.evals import metrics as phoenix

from .failures import failure_of
from .settings import Settings, heard

VERSION = importlib.metadata.version("arize-phoenix-evals")
LLM_EXAMPLES_MAX = 64

# Where emberd finds a field, unless a job maps it elsewhere.
OUTPUT = ["output", "root.output"]
PATHS = {
    "input": ["input", "root.input"],
    "output": OUTPUT,
    "text": OUTPUT,
    "expected": ["reference"],
    "context": ["context", "all(RETRIEVER).output"],
    "document_text": ["context", "first(RETRIEVER).output"],
    "conversation": ["messages", "first(LLM).input"],
    "user_message": ["/metadata/user_message", "input", "root.input"],
    "available_tools": ["/metadata/tools", "first(LLM).attributes/llm.tools"],
    "tool_selection": ["/metadata/tool_calls", "all(LLM).tool_call"],
    "tool_call": ["/metadata/tool_calls", "all(TOOL).input"],
    "tool_result": ["/metadata/tool_results", "all(TOOL).output"],
}

MODEL_KEYS = [
    Key("model", "The judging model; EMBERD_LLM_MODEL otherwise.", None),
    Key("temperature", "0 to 2; the provider's own otherwise.", None),
    Key("max_tokens", "The longest answer.", None),
]
F_KEYS = [
    Key("beta", "0.5, 1 or 2: how much recall counts.", 1.0),
    Key("average", "macro, micro or weighted.", "macro"),
    Key("zero_division", "The score when nothing is there to divide by.", 0.0),
    Key("positive_label", "The label that counts, when there are two.", None),
]
REGEX_KEYS = [
    Key("pattern", "A regular expression of Python's."),
    Key("include_explanation", "Whether to say how often it matches.", True),
]


def all_of(settings: Settings) -> Iterator[Evaluator]:
    """One evaluator for each public name of `phoenix.evals.metrics`."""
    for name in phoenix.__all__:
        metric = getattr(phoenix, name)
        with warnings.catch_warnings():
            # A deprecated metric is served as long as it is there.
            warnings.simplefilter("ignore", DeprecationWarning)
            if name == "MatchesRegex":
                yield _code(metric("x"), REGEX_KEYS, lambda config: phoenix.MatchesRegex(**config))
            elif name == "PrecisionRecallFScore":
                yield _code(metric(), F_KEYS, lambda config: phoenix.PrecisionRecallFScore(**config), _f_outputs())
            elif isinstance(metric, type):
                yield _llm(metric, settings)
            else:
                yield _code(metric, [], lambda config, metric=metric: metric)


def _f_outputs() -> list:
    names = ["precision", "recall", "f1", "f2", "f0_5"]
    return [Output(name + suffix, "maximize", 0, 1) for name in names for suffix in ("", "_micro", "_weighted")]


def _code(metric: Any, keys: list, build: Callable, outputs: list = []) -> Evaluator:
    described = metric.describe()
    outputs = outputs or [Output(described["name"], described["direction"], 0, 1)]
    return _served(described, metric, keys, outputs, build)


def _llm(metric: type, settings: Settings) -> Evaluator:
    sample = metric(llm=settings.placeholder())
    described = sample.describe()
    scores = [score for score in sample.label_score_map.values() if score is not None]
    output = Output(described["name"], described["direction"], min(scores), max(scores), tuple(sample.labels))

    def build(config: dict) -> Any:
        model = config.pop("model", None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return metric(llm=settings.llm(model), **config)

    return _served(described, sample, MODEL_KEYS, [output], build, LLM_EXAMPLES_MAX)


def _served(described: dict, sample: Any, keys: list, outputs: list, build: Callable, examples_max: int = 0) -> Evaluator:
    schema = described["input_schema"]
    required = set(schema.get("required", []))
    properties = schema["properties"]
    fields = [
        (name, name in required, re.sub(r"\s+", " ", about.get("description", "")), PATHS.get(name, []))
        for name, about in properties.items()
    ]
    texts = {name for name, about in properties.items() if about.get("type") == "string"}

    @functools.lru_cache(maxsize=64)
    def built(config: str) -> Any:
        # null is what is said by not saying it.
        return build({key: value for key, value in json.loads(config).items() if value is not None})

    async def judge(values: dict, config: dict) -> list:
        try:
            metric = built(json.dumps(config, sort_keys=True))
        except Failure:
            raise
        except Exception as error:
            raise Failure("config_error", f"{type(error).__name__}: {error}") from error
        asked = {name: _text(value) if name in texts else value for name, value in values.items()}
        said: dict = {}
        heard.set(said)
        try:
            # Never evaluate(): after a 429 it sleeps for seconds, and everybody with it.
            scores = await metric.async_evaluate(asked)
        except Exception as error:
            raise failure_of(error, said) from error
        return [_score(score) for score in scores]

    summary = next(iter((type(sample).__doc__ or "").strip().split("\n\n")), "")
    summary = re.sub(r"\s+", " ", summary)
    return Evaluator(described["name"], VERSION, described["kind"], summary, fields, outputs, keys, judge, examples_max)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _score(score: Any) -> Score:
    number = None if score.score is None else float(score.score)
    metadata = {key: value for key, value in (score.metadata or {}).items() if value is not None}
    return Score(number, score.label, score.explanation, score.name or "", metadata)
