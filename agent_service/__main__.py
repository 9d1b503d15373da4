"""``python -m agent_service`` is the ``agent-service`` command."""

import sys

from agent_service.cli.command import main

sys.exit(main())
