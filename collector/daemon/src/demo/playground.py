"""A small playground: people trying prompts, as an application instrumented with OpenInference would report it.

Every span goes out through the OpenTelemetry SDK's own batch processor and OTLP exporter, as any application's would.
The answers are made up (there is no model here); durations are given to the spans instead of being waited for.

    python playground.py --api http://127.0.0.1:8317 --otlp http://127.0.0.1:4317 --rate 2
"""

import argparse
import json
import random
import signal
import sys
import time
import urllib.request
import uuid

from openinference.semconv.resource import ResourceAttributes
from openinference.semconv.trace import MessageAttributes, OpenInferenceSpanKindValues, SpanAttributes
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode, set_span_in_context

PROJECT = "playground"

# title, template, model, typical seconds, a question and an answer for each try
PROMPTS = [
    (
        "Support answer",
        "Answer the customer in two friendly sentences.\n\nQuestion: {question}",
        "gpt-4o-2024-08-06",
        1.4,
        [
            ("How do I reset my password?", "Open Settings, choose Security, then Reset password. You get a mail within a minute."),
            ("Where is my invoice?", "You find every invoice under Billing. The newest one is on top."),
            ("Can I share my account?", "Each seat is for one person. An admin can add a seat under Team."),
        ],
    ),
    (
        "SQL from a question",
        "Write one PostgreSQL query. Schema: {schema}\n\nQuestion: {question}",
        "gpt-4o-mini",
        0.7,
        [
            ("How many users signed up last week?", "SELECT count(*) FROM users WHERE created_at > now() - interval '7 days';"),
            ("Which plan earns most?", "SELECT plan, sum(amount) FROM payments GROUP BY plan ORDER BY 2 DESC LIMIT 1;"),
        ],
    ),
    (
        "Summarise an article",
        "Summarise for a busy reader, at most 40 words.\n\n{article}",
        "claude-sonnet-4-5",
        2.6,
        [
            ("Tides follow the moon because gravity pulls ...", "The moon's pull raises the sea on both sides of the earth; as the earth turns, coasts pass through."),
            ("Bread rises because yeast eats sugar ...", "Yeast turns sugar into gas; gluten holds the bubbles; heat sets them. Time and warmth decide the crumb."),
        ],
    ),
]


def create_prompts(api):
    """Makes the prompts in emberd's library, or finds those of an earlier run by title."""
    with urllib.request.urlopen(f"{api}/api/prompts?limit=200", timeout=10) as answer:
        known = {prompt["title"]: prompt["id"] for prompt in json.load(answer)["data"]}
    for title, template, *_ in PROMPTS:
        if title in known:
            continue
        body = json.dumps({"title": title, "content": template}).encode()
        request = urllib.request.Request(f"{api}/api/prompts", data=body, headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            known[title] = json.load(answer)["id"]
    return known


def nanos(seconds):
    return int(seconds * 1e9)


def one_try(tracer, prompt_id, prompt, person, session):
    """One person tries one prompt: a CHAIN root, a RETRIEVER and an LLM call below it."""
    title, template, model, typical, pairs = prompt
    question, answer = random.choice(pairs)
    took = random.lognormvariate(0, 0.35) * typical
    luck = random.random()
    end = time.time()
    start = end - took

    root = tracer.start_span("playground.run", start_time=nanos(start))
    root.set_attributes({
        SpanAttributes.OPENINFERENCE_SPAN_KIND: OpenInferenceSpanKindValues.CHAIN.value,
        SpanAttributes.INPUT_VALUE: question,
        SpanAttributes.SESSION_ID: session,
        SpanAttributes.USER_ID: person,
        "prompt.id": prompt_id,
        SpanAttributes.METADATA: json.dumps({"prompt_title": title, "surface": "playground"}),
    })
    below = set_span_in_context(root)

    search = tracer.start_span("search", context=below, start_time=nanos(start + 0.01 * took))
    search.set_attributes({
        SpanAttributes.OPENINFERENCE_SPAN_KIND: OpenInferenceSpanKindValues.RETRIEVER.value,
        SpanAttributes.INPUT_VALUE: question,
        "retrieval.documents.0.document.content": "A paragraph that may help.",
    })
    search.end(nanos(start + 0.1 * took))

    call = tracer.start_span("ChatCompletion", context=below, start_time=nanos(start + 0.12 * took))
    role, content = MessageAttributes.MESSAGE_ROLE, MessageAttributes.MESSAGE_CONTENT
    call.set_attributes({
        SpanAttributes.OPENINFERENCE_SPAN_KIND: OpenInferenceSpanKindValues.LLM.value,
        SpanAttributes.LLM_PROVIDER: "anthropic" if model.startswith("claude") else "openai",
        SpanAttributes.LLM_INVOCATION_PARAMETERS: json.dumps({"model": model, "stream": True, "temperature": 0.2}),
        f"{SpanAttributes.LLM_INPUT_MESSAGES}.0.{role}": "user",
        f"{SpanAttributes.LLM_INPUT_MESSAGES}.0.{content}": template.replace("{question}", question).replace("{article}", question),
    })
    if luck < 0.03:
        call.record_exception(TimeoutError("Request timed out."))
        call.set_status(Status(StatusCode.ERROR, "TimeoutError: Request timed out."))
        root.set_status(Status(StatusCode.ERROR, "TimeoutError: Request timed out."))
    elif luck < 0.08:
        call.set_status(Status(StatusCode.ERROR, "RateLimitError: Error code: 429"))
        root.set_status(Status(StatusCode.ERROR, "RateLimitError: Error code: 429"))
    else:
        prompt_tokens = len(template.split()) * 2 + len(question.split()) + random.randint(20, 400)
        completion_tokens = len(answer.split()) * 2 + random.randint(0, 60)
        call.add_event("First Token Stream Event", timestamp=nanos(start + 0.3 * took))
        call.set_attributes({
            SpanAttributes.LLM_MODEL_NAME: model,
            SpanAttributes.LLM_TOKEN_COUNT_PROMPT: prompt_tokens,
            SpanAttributes.LLM_TOKEN_COUNT_COMPLETION: completion_tokens,
            SpanAttributes.LLM_TOKEN_COUNT_TOTAL: prompt_tokens + completion_tokens,
            f"{SpanAttributes.LLM_OUTPUT_MESSAGES}.0.{role}": "assistant",
            f"{SpanAttributes.LLM_OUTPUT_MESSAGES}.0.{content}": answer,
            SpanAttributes.LLM_FINISH_REASON: "stop",
        })
        call.set_status(Status(StatusCode.OK))
        root.set_attribute(SpanAttributes.OUTPUT_VALUE, answer)
        root.set_status(Status(StatusCode.OK))
    call.end(nanos(end - 0.01 * took))
    root.end(nanos(end))
    return format(root.get_span_context().trace_id, "032x")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--api", required=True, help="emberd's HTTP API")
    parser.add_argument("--otlp", required=True, help="emberd's OTLP/gRPC door")
    parser.add_argument("--rate", type=float, default=2.0, help="tries a second")
    parser.add_argument("--count", type=int, default=0, help="stop after this many tries (0: go on)")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    ids = create_prompts(args.api)
    resource = Resource.create({"service.name": "playground", ResourceAttributes.PROJECT_NAME: PROJECT})
    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(endpoint=args.otlp, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
    tracer = provider.get_tracer("emberd.playground")

    people = [f"person-{n}@example.com" for n in range(1, 6)]
    sessions = {person: str(uuid.uuid4()) for person in people}
    tried = 0
    try:
        while not args.count or tried < args.count:
            prompt = random.choice(PROMPTS)
            person = random.choice(people)
            trace = one_try(tracer, ids[prompt[0]], prompt, person, sessions[person])
            print(trace, ids[prompt[0]], flush=True)
            tried += 1
            if random.random() < 0.1:
                sessions[person] = str(uuid.uuid4())
            time.sleep(random.expovariate(args.rate))
    finally:
        provider.shutdown()


if __name__ == "__main__":
    main()
