"""Writes references.json: what the Python packages say on the same inputs, for tests/it/references.rs.

    python -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make.py

phoenix.server's json_distance is taken from the Phoenix that EMBERD_PHOENIX names (a venv with arize-phoenix), as the other tests do.
The corpus is generated from a fixed seed, and picked by hand where packages are known to differ.
"""

import ast
import glob
import importlib.metadata
import json
import os
import random
import re

import jsonschema
import Levenshtein
import numpy
import rapidfuzz.distance
import sacrebleu
import scipy.stats
import sklearn.metrics
import statsmodels.stats.contingency_tables
import statsmodels.stats.multitest
import statsmodels.stats.proportion
from phoenix.evals.metrics import MatchesRegex, PrecisionRecallFScore, exact_match
from rouge_score import rouge_scorer

PACKAGES = [
    "arize-phoenix-evals", "jsonschema", "Levenshtein", "rapidfuzz", "rouge-score", "sacrebleu", "scikit-learn", "scipy", "statsmodels",
]
rng = random.Random(20260601)

WORDS = """the a cat dog sat on mat quickly Paris is capital of France 42 3.14 1,000 well-known e.g. U.S. don't it's naïve café Straße
ΑΒΓ δέλτα Привет мир 東京 は 首都 🙂 👩‍👩‍👧 x_y foo/bar a@b.com (see) [1] {x} "quoted" &amp; &lt;b&gt; <skipped> -- – — ... !? end. Yes, no; maybe:
I İstanbul ǅ ﬁ K 10-12 2024-05-01 5% $3 #tag ~ ^ ` \\ | = + *""".split()
SPACES = [" "] * 12 + ["  ", "\n", "\t", "-\n", "\u00a0", "\u2009", "\x1c"]


def text(words):
    return "".join(rng.choice(WORDS) + rng.choice(SPACES) for _ in range(words))


def changed(words):
    """A text that shares much with the first."""
    words = list(words)
    for _ in range(rng.randrange(0, 1 + len(words) // 3)):
        at = rng.randrange(0, len(words) + 1)
        action = rng.randrange(4)
        if action == 0:
            words.insert(at, rng.choice(WORDS))
        elif words:
            at %= len(words)
            if action == 1:
                del words[at]
            elif action == 2:
                words[at] = rng.choice(WORDS)
            else:
                other = rng.randrange(len(words))
                words[at], words[other] = words[other], words[at]
    return " ".join(words)


def pairs():
    yield from [
        ("", [""]), ("a", [""]), ("", ["a"]), ("same", ["same"]), ("Same", ["same"]), (" pad ", ["pad"]),
        ("the cat sat on the mat", ["the cat sat on the mat"]),
        ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
        ("It is a guide to action which ensures that the military always obeys the commands of the party.",
         ["It is a guide to action that ensures that the military will forever heed Party commands.",
          "It is the guiding principle which guarantees the military forces always being under the command of the Party.",
          "It is the practical guide for the army always to heed the directions of the party."]),
        ("police kill the gunman", ["police killed the gunman"]), ("the gunman kill police", ["police killed the gunman"]),
        ("kitten", ["sitting"]), ("a" * 70, ["a" * 69 + "b"]), ("ab" * 200, ["ba" * 200]), ("🙂", ["🙃"]), ("e\u0301", ["é"]),
        ("one two three", ["three two one"]), ("a b c d", ["a b c d e f g h"]), ("a b c d e f g h", ["a b c d"]),
        ("1.5", ["1,5"]), ("...", ["."]), (",,,.", ["., ,"]), ("5-3=2", ["5 - 3 = 2"]), ("x.-\ny", ["x.y"]), ("&amp;lt;", ["<"]),
        ("word\u2028word", ["word word"]), ("\x1fword", ["word"]), ("İI", ["ii"]),
    ]
    for _ in range(260):
        words = [rng.choice(WORDS) for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 21, 40, 80]))]
        output = rng.choice(SPACES).join([" ".join(words), rng.choice(["", text(3)])])
        yield output, [rng.choice([changed(words), text(len(words))]) for _ in range(rng.choice([1, 1, 1, 2, 3]))]


def text_cases():
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    for output, references in pairs():
        rouge = max((scorer.score(reference, output)["rougeL"] for reference in references), key=lambda score: score.fmeasure)
        yield {
            "output": output,
            "reference": references if len(references) > 1 else references[0],
            "rouge_l": [rouge.precision, rouge.recall, rouge.fmeasure],
            "bleu": sacrebleu.sentence_bleu(output, references).score / 100,
            "bleu_lower": sacrebleu.sentence_bleu(output, references, lowercase=True).score / 100,
            "ratio": max(Levenshtein.ratio(output, reference) for reference in references),
            "similarity": max(rapidfuzz.distance.Levenshtein.normalized_similarity(output, reference) for reference in references),
            "distance": min(Levenshtein.distance(output, reference) for reference in references),
            "exact_match": max(
                exact_match.evaluate({"output": output, "expected": reference})[0].score for reference in references
            ),
        }


PATTERNS = [r"[0-9]+", r"^the", r"mat$", r"(?i)PARIS", r"[^\s]+@[^\s]+", r"\.", r"a|b|c", r"x*", r"(cat|dog)\s(sat)?", r"\bis\b", r"^$", r"[A-Z]{2,}"]


def regex_cases():
    for pattern in PATTERNS:
        evaluator = MatchesRegex(pattern=pattern)
        for _ in range(12):
            # ASCII: \s, \b and $ before a final line break are where the dialects part.
            output = re.sub(r"[^ -~]", "", text(rng.randrange(0, 12)))
            score = evaluator.evaluate({"output": output})[0]
            found = re.match(r"There are (\d+) matches", score.explanation)
            yield {"pattern": pattern, "output": output, "score": score.score, "count": int(found[1]) if found else 0}


def label_cases():
    kinds = [["cat", "dog", "bird"], ["yes", "no"], [0, 1], [0, 1, 2], ["a"], [1, 2, 3, 4, 5, 6, 7]]
    for at in range(240):
        kind = rng.choice(kinds)
        length = rng.choice([1, 2, 3, 5, 10, 30])
        expected = [rng.choice(kind) for _ in range(length)]
        output = [label if rng.random() < 0.6 else rng.choice(kind) for label in expected]
        config = {"beta": rng.choice([1.0, 0.5, 2.0]), "average": rng.choice(["macro", "micro", "weighted"]),
                  "zero_division": rng.choice([0.0, 1.0])}
        if rng.random() < 0.25:
            config["positive_label"] = expected[0]
        scores = PrecisionRecallFScore(**config).evaluate({"expected": expected, "output": output})
        case = {"config": config, "output": output, "reference": expected,
                "phoenix": [[score.name, score.score] for score in scores], "sklearn": None}
        labels = sorted(set(expected) | set(output), key=str)
        positive = config.get("positive_label")
        if positive is None and config["average"] == "macro" and set(labels) == {0, 1}:
            positive = 1
        # With zero_division = 1 scikit-learn defines F of an absent class otherwise than phoenix-evals does.
        if config["zero_division"] == 0.0:
            arguments = {"beta": config["beta"], "zero_division": 0.0}
            if positive is None:
                found = sklearn.metrics.precision_recall_fscore_support(
                    expected, output, labels=labels, average=config["average"], **arguments)
                case["sklearn"] = [float(value) for value in found[:3]]
            else:
                found = sklearn.metrics.precision_recall_fscore_support(
                    expected, output, labels=[positive], average=None, **arguments)
                case["sklearn"] = [float(value[0]) for value in found[:3]]
        yield case


def any_json(depth):
    kind = rng.randrange(8 if depth else 5)
    if kind < 5:
        return rng.choice([None, True, False, 0, 1, 1.0, 2.5, -3, "", "x", "1", "ü"])
    if kind < 6:
        return [any_json(depth - 1) for _ in range(rng.randrange(5))]
    return {rng.choice("abcdefg"): any_json(depth - 1) for _ in range(rng.randrange(5))}


def json_cases():
    # The function alone: importing the server would start half of it.
    (path,) = glob.glob(os.path.join(os.environ["EMBERD_PHOENIX"], "lib/python*/site-packages/phoenix/server/api/evaluators.py"))
    with open(path, encoding="utf-8") as source:
        module = ast.parse(source.read())
    module.body = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "json_diff_count"]
    names = {"Any": object}
    exec(compile(module, path, "exec"), names)
    json_diff_count = names["json_diff_count"]

    for _ in range(200):
        reference = any_json(3)
        output = any_json(3) if rng.random() < 0.3 else json.loads(json.dumps(reference))
        if isinstance(output, dict):
            output[rng.choice("abch")] = any_json(1)
        elif isinstance(output, list):
            output.append(any_json(1))
        if output is None or reference is None:
            continue
        yield {"output": json.dumps(output), "reference": json.dumps(reference), "distance": json_diff_count(reference, output)}


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string", "minLength": 1}}, "required": ["a"]},
    {"type": ["array", "string"], "maxItems": 2, "uniqueItems": True},
    {"anyOf": [{"type": "number", "minimum": 1}, {"type": "null"}, {"const": "x"}]},
    {"type": "object", "additionalProperties": False, "patternProperties": {"^[a-c]$": True}},
    {"enum": [1, "1", True, None]},
    {"$defs": {"n": {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
]


def schema_cases():
    for schema in SCHEMAS:
        validator = jsonschema.Draft202012Validator(schema)
        for _ in range(30):
            output = any_json(3)
            yield {"schema": schema, "output": json.dumps(output), "valid": validator.is_valid(output)}


def number_lists():
    yield [0.0, 1.0, 1.0]
    yield [0.5, 0.25]
    yield [1e-9, 2e-9, 3e-9]
    for _ in range(30):
        yield [round(rng.random(), 3) for _ in range(rng.choice([2, 3, 5, 10, 50]))]


def statistics():
    summaries = []
    for values in number_lists():
        level = rng.choice([0.8, 0.9, 0.95, 0.99])
        low, high = scipy.stats.t.interval(level, len(values) - 1, loc=numpy.mean(values), scale=scipy.stats.sem(values))
        summaries.append({"values": values, "level": level, "mean": float(numpy.mean(values)), "sd": float(numpy.std(values, ddof=1)),
                          "student": [float(low), float(high)],
                          "percentiles": [float(numpy.percentile(values, q)) for q in (50, 90, 99)]})
    wilson = []
    for of in (1, 2, 5, 10, 100, 1000):
        for passed in sorted({0, 1, of // 3, of}):
            level = rng.choice([0.8, 0.9, 0.95, 0.99])
            low, high = statsmodels.stats.proportion.proportion_confint(passed, of, alpha=1 - level, method="wilson")
            wilson.append({"passed": passed, "of": of, "level": level, "interval": [float(low), float(high)]})
    special = {
        "normal_cdf": [[z, float(scipy.stats.norm.cdf(z))] for z in (-8.0, -3.0, -1.0, -0.1, 0.0, 0.5, 1.96, 4.0)],
        "normal_quantile": [[p, float(scipy.stats.norm.ppf(p))] for p in (1e-9, 0.001, 0.025, 0.3, 0.5, 0.8, 0.975, 0.9999)],
        "t_two_sided": [[t, d, float(2 * scipy.stats.t.sf(t, d))] for t in (0.0, 0.5, 2.0, 10.0) for d in (1, 2, 5, 30, 1000)],
        "t_critical": [[level, d, float(scipy.stats.t.ppf(0.5 + level / 2, d))] for level in (0.8, 0.95, 0.999) for d in (1, 2, 5, 30, 1000)],
        "chi_squared_1_sf": [[x, float(scipy.stats.chi2.sf(x, 1))] for x in (0.0, 0.01, 1.0, 3.84, 10.0, 50.0)],
    }
    return {"summaries": summaries, "wilson": wilson, "special": special, "paired": paired(), "holm": holm(), "mcnemar": mcnemar()}


def paired():
    cases = []
    for _ in range(60):
        n = rng.choice([2, 4, 6, 10, 20, 26, 40])
        grid = rng.choice([2, 5, 1000])
        a = [rng.randrange(grid + 1) / grid for _ in range(n)]
        b = [min(1.0, max(0.0, value + rng.choice([-1, 0, 1, 1]) * rng.randrange(grid + 1) / grid / 2)) for value in a]
        differences = [y - x for x, y in zip(a, b)]
        kept = [d for d in differences if d != 0]
        if not kept:
            continue
        magnitudes = [abs(d) for d in kept]
        is_exact = len(kept) <= 25 and len(set(magnitudes)) == len(magnitudes)
        method = "exact" if is_exact else "asymptotic"
        found = scipy.stats.wilcoxon(kept, zero_method="wilcox", correction=False, method=method) if is_exact else \
            scipy.stats.wilcoxon(kept, zero_method="wilcox", correction=False, method="approx")
        case = {"a": a, "b": b, "wilcoxon": float(found.pvalue), "is_exact": is_exact, "t": None}
        if numpy.std(differences) > 1e-12:
            case["t"] = float(scipy.stats.ttest_rel(b, a).pvalue)
        cases.append(case)
    return cases


def holm():
    cases = []
    for _ in range(20):
        ps = [round(rng.random() ** 3, 6) for _ in range(rng.randrange(1, 9))]
        cases.append({"p": ps, "adjusted": [float(p) for p in statsmodels.stats.multitest.multipletests(ps, method="holm")[1]]})
    return cases


def mcnemar():
    cases = []
    for only_a, only_b in [(0, 0), (1, 0), (0, 5), (3, 7), (10, 10), (12, 30), (200, 250)]:
        found = statsmodels.stats.contingency_tables.mcnemar([[5, only_a], [only_b, 9]], exact=True)
        cases.append({"only_a": only_a, "only_b": only_b, "p": float(found.pvalue)})
    return cases


def main():
    result = {
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "texts": list(text_cases()), "regex": list(regex_cases()), "labels": list(label_cases()),
        "schemas": list(schema_cases()), "statistics": statistics(), "json": list(json_cases()),
    }
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "references.json")
    with open(path, "w", encoding="utf-8") as out:
        # One case a line, so that a change can be read.
        out.write("{\n")
        for number, (name, value) in enumerate(result.items()):
            out.write(f"{json.dumps(name)}: ")
            if isinstance(value, list):
                out.write("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False, allow_nan=False) for case in value) + "\n]")
            else:
                out.write(json.dumps(value, allow_nan=False))
            out.write(",\n" if number + 1 < len(result) else "\n")
        out.write("}\n")


main()
