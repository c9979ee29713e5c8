"""Write 200 images with questions as a jsonl file, to try difftrain as on data of your own.

The images are drawn, so that the small model that ships with difftrain can read them. Four of the
200 rows have the faults of real files: a missing or cut image, no answer, a repetition.

python examples/own_photos.py FOLDER
"""

import io
import json
import sys
from pathlib import Path

from PIL import Image

import difftrain

NUM_ROWS = 200
NUM_FAULTY = 4
ENLARGE = 2  # the files are larger than the model's pixel budget, as photos are


def main() -> None:
    """Write FOLDER/photos/*.jpg and FOLDER/samples.jsonl."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "own_photos")
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    drawn = difftrain.load_dataset("shapes", "data.num_samples=400", "data.world_seed=7")
    # Boxes are left out: their answers are in pixels and would have to be enlarged, too.
    usable = [sample for sample in drawn if sample.answer_kind != "boxes" and sample.images]
    rows = []
    for number, sample in enumerate(usable[: NUM_ROWS - NUM_FAULTY], 1):
        name = f"photos/{number:03}.jpg"
        image = Image.open(io.BytesIO(sample.images[0])).convert("RGB")
        size = image.width * ENLARGE, image.height * ENLARGE
        image.resize(size, Image.Resampling.NEAREST).save(folder / name, quality=95)
        row = {"image": name, "question": sample.question, "answer": sample.answer}
        row |= {"choices": list(sample.options)} if sample.options else {}
        rows.append(row | {"task": sample.task})
    cut_short = (folder / rows[1]["image"]).read_bytes()[:500]
    (folder / "photos" / "cut_short.jpg").write_bytes(cut_short)
    rows += [
        rows[0] | {"image": "photos/missing.jpg"},
        rows[1] | {"image": "photos/cut_short.jpg"},
        {key: value for key, value in rows[2].items() if key != "answer"},
        rows[3],
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "samples.jsonl").write_text("".join(lines))
    print(f"{len(rows)} rows written to {folder / 'samples.jsonl'}")


if __name__ == "__main__":
    main()
