import shutil

from difftrain.report.write import write


def test_look(make_run):
    inputs = make_run(size=220)
    write(inputs)
    shutil.copytree(inputs.folder, "/tmp/look", dirs_exist_ok=True)
