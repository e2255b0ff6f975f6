"""A plugin that counts how many batches it is asked at once: `narrow` says that it bears two, `wide` says nothing.

Each example's score is the most that its evaluator was asked at once so far.
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

from emberd_plugin.contract import SERVICE, message

BEARS = {"narrow": 2, "wide": 0}
LOCK = threading.Lock()
NOW = dict.fromkeys(BEARS, 0)
MOST = dict.fromkeys(BEARS, 0)


def description(request, context):
    def one(name):
        return message("Description")(
            name=name, version="1", kind=1, outputs=[message("Output")(name=name, direction=3, min=0)],
            fields=[message("Field")(name="output", required=True, paths=["output"])],
            limits=message("Limits")(concurrent_batches_max=BEARS[name]))
    return message("DescribeResponse")(contract=1, plugin="crowd", evaluators=[one(name) for name in BEARS])


def evaluate(requests, context):
    for request in requests:
        name = request.evaluator
        with LOCK:
            NOW[name] += 1
            MOST[name] = max(MOST[name], NOW[name])
        time.sleep(0.2)
        with LOCK:
            NOW[name] -= 1
            score = message("Score")(name=name, score=MOST[name])
        for example in request.examples:
            scores = message("Scores")(scores=[score])
            yield message("EvaluateResponse")(results=[message("Result")(id=example.id, scores=scores)])


server = grpc.server(ThreadPoolExecutor(32))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {
    "Describe": grpc.unary_unary_rpc_method_handler(
        description, message("DescribeRequest").FromString, message("DescribeResponse").SerializeToString),
    "Evaluate": grpc.stream_stream_rpc_method_handler(
        evaluate, message("EvaluateRequest").FromString, message("EvaluateResponse").SerializeToString),
}),))
server.add_insecure_port("unix:" + os.environ["EMBERD_PLUGIN_SOCKET"])
server.start()
server.wait_for_termination()
