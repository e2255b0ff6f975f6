"""A plugin that misbehaves in the way that its argument names. On the wire it speaks for itself: no library is between.

Its evaluator `x` takes `output` and gives `x` in [0, 1], label good or bad. An example whose output is "poison" is special to some modes.
"""

import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

MODE = sys.argv[1]
HELD = []


def early() -> None:
    """What happens before anything listens."""
    if MODE == "crash_at_start":
        sys.exit(1)
    if MODE == "slow_start":
        time.sleep(600)
    if MODE in ("ignore_sigterm", "escapee"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if MODE == "silent_socket":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.environ["EMBERD_PLUGIN_SOCKET"])
        listener.listen()
        while True:
            HELD.append(listener.accept())
    if MODE == "http1":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.environ["EMBERD_PLUGIN_SOCKET"])
        listener.listen()
        while True:
            peer, _ = listener.accept()
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
            peer.close()


early()

import grpc  # noqa: E402

from emberd_plugin.contract import SERVICE, message  # noqa: E402

Response, Result, Score = message("EvaluateResponse"), message("Result"), message("Score")


def description():
    output = message("Output")(name="x", direction=1, min=0, max=1, labels=["good", "bad"])
    field = message("Field")(name="output", required=True, paths=["output"])
    evaluator = message("Description")(name="x", version="1", kind=1, fields=[field], outputs=[output])
    told = message("DescribeResponse")(contract=1, plugin="abusive", evaluators=[evaluator])
    first = told.evaluators[0]
    if MODE == "wrong_contract":
        told.contract = 2
    elif MODE == "bad_plugin_name":
        told.plugin = "../x"
    elif MODE == "bad_name":
        first.name = "../x"
    elif MODE == "same_name_twice":
        told.evaluators.append(first)
    elif MODE == "describes_nothing":
        del told.evaluators[:]
    elif MODE == "bad_path":
        first.fields[0].paths[0] = "/etc/passwd"
    elif MODE == "no_direction":
        first.outputs[0].direction = 0
    elif MODE == "nan_range":
        first.outputs[0].min = float("nan")
    elif MODE == "huge_description":
        first.summary = "x" * (8 << 20)
    elif MODE == "many_evaluators":
        for number in range(1000):
            told.evaluators.add().CopyFrom(first)
            told.evaluators[-1].name = f"x{number}"
    elif MODE == "changes_its_description":
        first.version = str(os.getpid())
    return told


def good(example, **more):
    return Result(id=example.id, scores=message("Scores")(scores=[Score(name="x", score=0.5, label="good", **more)]))


def scored(example, *scores):
    return Result(id=example.id, scores=message("Scores")(scores=list(scores)))


def failed(example, class_, text):
    return Result(id=example.id, error=message("Error")(**{"class": class_}, message=text))


def is_poison(example):
    return example.fields_json["output"] == '"poison"'


def poisoned(example):
    """What the poison does; others are answered."""
    if MODE in ("crash_on_one", "crash_on_one_of_many"):
        os._exit(3)
    elif MODE == "segv_on_one":
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(60)
    elif MODE == "kill_own_group":
        os.killpg(0, signal.SIGKILL)
        time.sleep(60)
    elif MODE == "oom":
        HELD.append(bytearray(10 << 30))
    elif MODE == "hog":
        HELD.append(b"x" * (600 << 20))
        time.sleep(60)
    elif MODE == "fork_bomb":
        for _ in range(300):
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
        time.sleep(60)
    elif MODE == "fill_fds":
        while True:
            HELD.append(open("/dev/null"))
    elif MODE == "fill_disk":
        with open(os.path.join(os.environ["TMPDIR"], "big"), "wb") as file:
            while True:
                file.write(b"x" * (1 << 20))
    elif MODE == "raises":
        raise RuntimeError("no")


WIRE = {  # what each mode answers to an example
    "nan": lambda e: scored(e, Score(name="x", score=float("nan"))),
    "infinite": lambda e: scored(e, Score(name="x", score=float("inf"))),
    "enormous": lambda e: scored(e, Score(name="x", score=1e308)),
    "negative": lambda e: scored(e, Score(name="x", score=-0.001)),
    "undeclared_label": lambda e: scored(e, Score(name="x", score=0.5, label="ugly")),
    "undeclared_score": lambda e: scored(e, Score(name="y", score=0.5)),
    "same_score_twice": lambda e: scored(e, Score(name="x", score=0.5), Score(name="x", score=0.6)),
    "neither_number_nor_label": lambda e: scored(e, Score(name="x", explanation="because")),
    "no_scores": lambda e: scored(e),
    "many_scores": lambda e: scored(e, *[Score(name="x", score=0.5)] * 1000),
    "empty_result": lambda e: Result(id=e.id),
    "wrong_direction": lambda e: good(e, direction=2),
    "unknown_direction": lambda e: good(e, direction=77),
    "deep_metadata": lambda e: good(e, metadata_json='{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "metadata_is_no_object": lambda e: good(e, metadata_json="[1]"),
    "unknown_class": lambda e: failed(e, "whatever", "x" * (1 << 20)),
    "long_label": lambda e: scored(e, Score(name="x", label="x" * 100_000)),
    "huge_cost": lambda e: Result(id=e.id, scores=good(e).scores, cost=message("Cost")(prompt_tokens=1 << 63)),
    "nan_cost": lambda e: Result(id=e.id, scores=good(e).scores, cost=message("Cost")(usd=float("nan"))),
    "foreign_ids": lambda e: Result(id=e.id + 1000, scores=good(e).scores),
    "long_explanation": lambda e: good(e, explanation="é" * 100_000),
    "reply_of_64_mib": lambda e: good(e, explanation="x" * (64 << 20)),
}


def evaluate(requests, context):
    if MODE == "half_closed":
        return
    for request in requests:
        for at, example in enumerate(request.examples):
            if is_poison(example):
                poisoned(example)
            elif MODE == "crash_on_one_of_many":
                # Long enough for others to be asked at the same time.
                time.sleep(0.1)
            if MODE in ("hang", "ignore_sigterm", "escapee"):
                if MODE == "escapee" and not HELD:
                    HELD.append(1)
                    if os.fork() == 0:
                        os.setsid()
                        time.sleep(600)
                time.sleep(600)
            elif MODE == "busy_for_ever":
                while True:
                    pass
            elif MODE == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(60)
            elif MODE == "exit_0_midway" and len(request.examples) > 1 and at == 1:
                time.sleep(0.3)
                os._exit(0)
            elif MODE == "changes_its_description" and len(request.examples) > 1:
                os._exit(0)
            elif MODE in ("no_results", "too_many_results", "empty_for_ever"):
                continue
            elif MODE == "nan_while" and os.path.exists(sys.argv[2]):
                yield Response(results=[WIRE["nan"](example)])
                continue
            elif MODE == "double_results":
                yield Response(results=[good(example), good(example)])
                continue
            elif MODE == "slow_drip" and at > 0:
                time.sleep(10)
            elif MODE == "refuses":
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "x" * 4000)
            elif MODE == "both":
                # Both members of the oneof on the wire: the last one holds.
                raw = good(example).SerializeToString() + failed(example, "refusal", "no").SerializeToString()[2:]
                yield b"\x0a" + _varint(len(raw)) + raw
                continue
            yield Response(results=[WIRE.get(MODE, good)(example)])
    if MODE == "too_many_results":
        yield from (Response(results=[good(message("Example")(id=at)) for at in range(100, 10_000)]) for _ in range(1000))
    while MODE == "streams_for_ever":
        yield Response(results=[good(message("Example")(id=1))])
    while MODE == "empty_for_ever":
        yield Response()


def _varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def serialized(response):
    return response if isinstance(response, bytes) else response.SerializeToString()


def garbage(request):
    return b"\xff" * 100


def write_for_ever(bytes_):
    while True:
        os.write(1, bytes_)


def main():
    handlers = {
        "Describe": grpc.unary_unary_rpc_method_handler(
            lambda request, context: description(),
            message("DescribeRequest").FromString,
            garbage if MODE == "garbage_description" else message("DescribeResponse").SerializeToString),
        "Evaluate": grpc.stream_stream_rpc_method_handler(
            evaluate, message("EvaluateRequest").FromString,
            garbage if MODE == "garbage_reply" else serialized),
    }
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_send_message_length", 128 << 20)])
    service = "other.v1.Service" if MODE == "wrong_service" else SERVICE
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port("unix:" + os.environ["EMBERD_PLUGIN_SOCKET"])
    server.start()
    noise = {"line_of_1_gib": b"x" * 65536, "not_utf8": b"\xff\xfe\n" * 1000, "many_lines": b"x\n" * 30000}
    if MODE in noise:
        threading.Thread(target=write_for_ever, args=(noise[MODE],), daemon=True).start()
    if MODE == "closes_its_pipes":
        os.close(1)
        os.close(2)
    if MODE == "dies_when_ready":
        time.sleep(0.2)
        os._exit(0)
    server.wait_for_termination()


main()
