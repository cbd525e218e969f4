"""What all views of the page share: tabs, links, copies, the key, a server that comes and goes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.app.stub_server import ServerProcess
from tests.browser.conftest import Open
from tests.conftest import TinyFolder
from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.real_model, pytest.mark.process]
