"""Start the agent from its package: `python3 -I -S agent.py run|ship|check|...`.

Isolated mode ignores PYTHONPATH and the user's site packages, -S those of the host, whose .pth
files and sitecustomize would be run with the sampler's capabilities. The folders of this package
are the only ones added to the interpreter's standard library.
"""

import sys
from pathlib import Path

if not (sys.flags.isolated and sys.flags.no_site):
    sys.exit(f"flamefleet-agent: start it as {sys.executable} -I -S {__file__} ...")

HERE = Path(__file__).resolve().parent
COMPILED = HERE / f"cp{sys.version_info.major}{sys.version_info.minor}"
if not COMPILED.is_dir():
    sys.exit(
        f"flamefleet-agent: no support for Python {sys.version_info.major}.{sys.version_info.minor}"
        f" in this package; it has {', '.join(sorted(p.name for p in HERE.glob('cp*')))}"
    )
sys.path[:0] = [str(HERE / "python"), str(COMPILED)]
sys.dont_write_bytecode = True

from node_agent.cli import main  # noqa: E402  (the paths above come first)

sys.exit(main())
