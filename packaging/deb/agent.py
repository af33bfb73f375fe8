"""Start the agent from its package: `python3 -I agent.py run|ship|check|...`.

Isolated mode ignores PYTHONPATH and the user's site packages, so the folders of this package are
the only ones added to the interpreter's own.
"""

import sys
from pathlib import Path

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
