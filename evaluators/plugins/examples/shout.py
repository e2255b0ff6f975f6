"""An evaluator for emberd. Configure `[plugins.shout] command = ["python3", "shout.py"]`, and use it as `shout/shouts`."""
from emberd_plugin import Plugin, Score

plugin = Plugin("shout")


@plugin.evaluator(version="1", direction="minimize", min=0, max=1)
def shouts(output: str, *, tolerated: float = 0.3) -> Score:
    "How much of the answer is written in capitals."
    letters = [c for c in output if c.isalpha()]
    share = sum(c.isupper() for c in letters) / max(len(letters), 1)
    return Score(share, explanation="loud" if share > tolerated else "quiet")


plugin.serve()
