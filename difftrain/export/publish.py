"""The export folder on the hub."""

from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import HfApi

from difftrain.data.storage import HubUnavailable

LEFT_OUT = ["manifest.json", ".*"]


def publish(folder: Path, repository: str, private: bool, api: Any = None) -> str:
    """Create the dataset if it is not there, and upload the folder; returns its address.

    Raises HubUnavailable, naming the finished folder, if the hub refuses or does not answer.
    """
    api = api or HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            repo_type="dataset",
            commit_message="Scores and picks by difftrain",
            ignore_patterns=LEFT_OUT,
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        told = str(error).splitlines()[0] if str(error) else "-"
        raise HubUnavailable(
            f"export.push_to_hub={repository}: the hub did not take it "
            f"({type(error).__name__}: {told}). The export is complete at {folder}; "
            "run the same command again with network and `hf auth login`"
        ) from error
    return f"{getattr(api, 'endpoint', 'https://huggingface.co')}/datasets/{repository}"
