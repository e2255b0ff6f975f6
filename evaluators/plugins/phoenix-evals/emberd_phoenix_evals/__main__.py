"""Serves all metrics. They are imported before it listens, which takes some seconds: being reachable is being ready."""

from emberd_plugin import Plugin

from . import metrics, settings


def main() -> None:
    known = settings.Settings.from_environment()
    plugin = Plugin("phoenix-evals", concurrent=known.concurrent)
    for evaluator in metrics.all_of(known):
        plugin.add(evaluator)
    plugin.serve()


main()
