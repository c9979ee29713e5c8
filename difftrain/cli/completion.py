"""Shell completion of commands, config groups and settings keys, printed as a static script."""

from collections.abc import Iterator
from enum import StrEnum

from difftrain.cli.overrides import config_groups, setting_keys, value_at
from difftrain.config.run_config import ConfigError, RunConfig

BASH = """\
# difftrain completion for bash: eval "$(difftrain completion bash)"
_difftrain() {{
    local cur=${{COMP_LINE:0:COMP_POINT}} words
    cur=${{cur##* }}
    if [ "$COMP_CWORD" -le 1 ]; then words="{commands}"; else words="{words}"; fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    # bash completes only what stands behind the last "="
    [[ $cur == *=* && $COMP_WORDBREAKS == *=* ]] && COMPREPLY=("${{COMPREPLY[@]#"${{cur%=*}}="}}")
    [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
    return 0
}}
complete -o default -F _difftrain difftrain
"""
ZSH = """\
#compdef difftrain
# difftrain completion for zsh: eval "$(difftrain completion zsh)"
_difftrain() {{
    if (( CURRENT == 2 )); then
        compadd -- {commands}
    else
        compadd -S '' -- {words}
        _files
    fi
}}
compdef _difftrain difftrain
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}


def completion_words() -> Iterator[str]:
    """GROUP=NAME of every group, and KEY= of every setting, with its values where it has few."""
    for group, names in config_groups().items():
        yield from (f"{group}={name}" for name in names)
    config = RunConfig()
    keys = list(setting_keys(config))
    for key in keys:
        value = value_at(config, key)
        if isinstance(value, StrEnum):
            yield from (f"{key}={member}" for member in type(value))
        elif isinstance(value, bool):
            yield from (f"{key}=true", f"{key}=false")
        elif not any(other.startswith(f"{key}.") for other in keys):
            yield f"{key}="


def script(arguments: list[str], commands: list[str]) -> str:
    """The script for the shell that the arguments name. Raises ConfigError for any other."""
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        raise ConfigError(
            [f"completion {' '.join(arguments)}: must be one of {', '.join(SCRIPTS)}"]
        )
    words = " ".join([*completion_words(), "--help", "--cfg", "--verbose"])
    return SCRIPTS[arguments[0]].format(commands=" ".join(commands), words=words)
