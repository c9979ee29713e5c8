"""A process that sends a run to a tracker, or that a live tracker follows, without torch.

python -m tests.report.tracker_process send|follow TRACKER < a pickled RunInputs
"""

import pickle
import sys
import time

from difftrain.config.report import Tracker
from difftrain.report.inputs import RunInputs
from difftrain.report.trackers import client_class
from difftrain.report.trackers.content import RunIdentity, TrackerState
from difftrain.report.trackers.live import live_trackers
from difftrain.report.trackers.sender import Sender


def start(tracker: Tracker, inputs: RunInputs) -> Sender:
    """A sender as a new process would have it."""
    state = TrackerState.load(inputs.folder, tracker)
    return Sender(client_class(tracker)(RunIdentity.of(inputs), inputs, state), inputs, state)


if __name__ == "__main__":
    run_inputs, name = pickle.load(sys.stdin.buffer), Tracker(sys.argv[2])
    if sys.argv[1] == "send":
        sender = start(name, run_inputs)
        sender.send_new()
        sender.close()
    else:
        with live_trackers([name], lambda: run_inputs):
            time.sleep(600)
