"""Write an evaluator for emberd in a few lines of Python.

    from emberd_plugin import Plugin, Score

    plugin = Plugin("shout")

    @plugin.evaluator(version="1", min=0, max=1)
    def shouts(output: str) -> Score:
        "Whether the answer is written in capitals."
        return Score(float(output.isupper()))

    plugin.serve()

Parameters are fields of an example: `input`, `output`, `reference`, `context`, `messages`, `metadata`, or any other name, which is looked
for among the metadata. One with a default is optional. Keyword-only parameters are configuration. A function gives a number, a bool, a
label, a `Score`, or a list of `Score`s; it raises `Failure` to say why it has none. It may be `async`; one that is not runs in a thread.
"""

from .contract import Failure, Key, Output, Score
from .plugin import Evaluator, Plugin, spend

__all__ = ["Evaluator", "Failure", "Key", "Output", "Plugin", "Score", "spend"]
