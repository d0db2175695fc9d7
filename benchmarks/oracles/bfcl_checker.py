"""The leaderboard's own AST checker, on cases from stdin: `bfcl_checker.py WHEEL < cases > verdicts`, both JSON.

Started by `environments.run_bfcl`; imports nothing of this project. A case is `{"category", "functions", "accepted",
"calls": [[name, arguments text], ...]}`, a verdict is `{"valid": bool, "error_type": str | null}`. A call is decoded as the
leaderboard's handler of OpenAI models does it: a text that is no JSON object makes the whole answer invalid. `error_type` is
`raised:...` where the checker itself failed.

`bfcl_eval.constants.model_config` imports the client libraries of thirty vendors for a table of model names. The table is
the real one; the handlers in it are stand-ins, because the checker only asks whether a model's function names may have dots.
"""

import importlib.abc
import importlib.machinery
import json
import sys
from types import ModuleType

# An OpenAI model: dots in function names are underscores.
MODEL = "gpt-4.1-2025-04-14-FC"
LANGUAGES = {"simple_java": "JAVA", "simple_javascript": "JAVASCRIPT"}


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Every module under `bfcl_eval.model_handler`, with any name in it."""

    def find_spec(self, name, path=None, target=None):
        if name.startswith("bfcl_eval.model_handler"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = ModuleType(spec.name)
        module.__getattr__ = lambda name: type(name, (), {})
        return module

    def exec_module(self, module):
        """Nothing to run."""


def main(wheel):
    sys.meta_path.insert(0, StandIns())
    sys.path.insert(0, wheel)
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.constants.model_config import MODEL_CONFIG_MAPPING
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    assert MODEL_CONFIG_MAPPING[MODEL].underscore_to_dot, MODEL

    def verdict(case):
        try:
            calls = [{name: json.loads(arguments)} for name, arguments in case["calls"]]
        except (ValueError, RecursionError):
            return {"valid": False, "error_type": "ast_decoder:decoder_failed"}
        if not all(isinstance(arguments, dict) for call in calls for arguments in call.values()):
            return {"valid": False, "error_type": "ast_decoder:decoder_wrong_output_format"}
        language = Language[LANGUAGES.get(case["category"], "PYTHON")]
        try:
            said = ast_checker(case["functions"], calls, case["accepted"], language, case["category"], MODEL)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the checker's answer
            return {"valid": False, "error_type": f"raised:{type(error).__name__}: {error}"}
        return {"valid": said["valid"], "error_type": said.get("error_type")}

    json.dump([verdict(case) for case in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
