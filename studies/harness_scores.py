"""Score a predictions file with VLMEvalKit, item by item. harness_parity.py runs this file.

    PYTHON studies/harness_scores.py PREDICTIONS.tsv DATASET JUDGE OUTPUT.json

PYTHON is the Python of an environment that has VLMEvalKit; nothing of difftrain is imported here.
DATASET is VLMEvalKit's name, such as MathVista_MINI; its items are downloaded unless the folder
LMUData has them. JUDGE is a model's name, or exact_matching for none. OUTPUT.json gets {"version",
"scores": {index: score}}. The exit code is 3 if VLMEvalKit cannot be imported.
"""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

NOT_INSTALLED = 3  # exit code


def item_scores(predictions: Path, dataset_name: str, judge: str) -> dict[str, float]:
    """The score of each item, by its index. Raises what VLMEvalKit raises."""
    os.environ["PRED_FORMAT"] = "tsv"  # the format of the files that evaluate() writes
    import pandas as pd
    from vlmeval.dataset import build_dataset  # pyright: ignore[reportMissingImports]

    dataset = build_dataset(dataset_name)
    if dataset is None:
        raise SystemExit(f"VLMEvalKit has no data set {dataset_name}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"predictions_{dataset_name}.tsv"
        if dataset_name == "OCRBench":  # it writes only totals, so each item gets its own file
            scores = {}
            for _, row in pd.read_csv(predictions, sep="\t").iterrows():
                row.to_frame().T.to_csv(file, sep="\t", index=False)
                scores[str(row["index"])] = float(dataset.evaluate(str(file))["Final Score"])
            return scores
        shutil.copyfile(predictions, file)
        dataset.evaluate(str(file), model=judge, nproc=4)
        for path in sorted(Path(folder).glob("*.tsv")):
            scored = pd.read_csv(path, sep="\t")
            if path == file or "index" not in scored:
                continue
            if "res" in scored and "hit" not in scored and "score" not in scored:  # MathVista
                from vlmeval.dataset.utils.mathvista import (  # pyright: ignore
                    post_check,
                )

                scored["hit"] = [bool(post_check(row)) for _, row in scored.iterrows()]
            column = next((name for name in ("hit", "score") if name in scored), None)
            if column is not None:
                keys = map(str, scored["index"])
                return {key: float(value) for key, value in zip(keys, scored[column], strict=True)}
    raise SystemExit(f"VLMEvalKit wrote no score of single items for {dataset_name}")


def main() -> None:
    """Write the scores of the predictions file named on the command line."""
    predictions, dataset_name, judge, output = sys.argv[1:]
    if importlib.util.find_spec("vlmeval") is None:
        sys.exit(NOT_INSTALLED)
    scores = item_scores(Path(predictions), dataset_name, judge)
    import vlmeval  # pyright: ignore[reportMissingImports]

    content = {"version": getattr(vlmeval, "__version__", "unknown"), "scores": scores}
    Path(output).write_text(json.dumps(content))


if __name__ == "__main__":
    main()
