"""The documented way to put Django's staff login in front, in a Django of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support import ROOT, python_path
from support.web import MEMORY, Site, memory_artifact

INTEGRATIONS = ROOT / "docs" / "integrations.md"

PROJECT = """
import json
import sys
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.management import call_command
from django.test import Client

APPS = ("admin", "auth", "contenttypes", "messages", "sessions")
settings.configure(
    SECRET_KEY="k" * 50,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="urls",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[f"django.contrib.{name}" for name in APPS],
    MIGRATION_MODULES={name: None for name in APPS},  # The tables are made at once.
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
)
django.setup()
call_command("migrate", run_syncdb=True, verbosity=0)
from django.contrib.auth.models import User

staff, other = User.objects.create(username="staff", is_staff=True), User.objects.create(username="other")


def document(answer):
    return json.loads(b"".join(answer.streaming_content))


strict = {"HTTP_HOST": "localhost", "headers": {"Accept": "application/json"}}

# Strangers and users who are not staff are sent to the login, whatever they ask for.
client = Client(enforce_csrf_checks=True)
for user in (None, other):
    if user is not None:
        client.force_login(user)
    for method in ("get", "post", "delete"):
        for path in ("/diagnostics/tasks/", "/diagnostics/runs/x/", "/diagnostics/healthz"):
            answer = getattr(client, method)(path, **strict)
            assert answer.status_code == 302, (path, answer.status_code)
            assert "/admin/login/" in answer["Location"]

# Staff get documents whose paths and URLs lead through Django, pages with frames of their own, and may change things.
client.force_login(staff)
[run] = document(client.get("/diagnostics/tasks/", **strict))["runs"]
assert run["href"] == "/diagnostics/tasks/a%2Fb/", run["href"]
page = client.get(run["href"], HTTP_HOST="localhost", headers={"Accept": "text/html"})
assert page.status_code == 200
assert page["X-Frame-Options"] == "SAMEORIGIN"
text = b"".join(page.streaming_content).decode()
assert 'href="/diagnostics/tasks/"' in text
url = urlsplit(document(client.get(run["href"] + "profile_artifacts/", **strict))["urls"]["memory_profile"])
assert url.path.startswith("/diagnostics/artifacts/"), url
answer = client.get(f"{url.path}?{url.query}", **strict)
assert b"".join(answer.streaming_content) == sys.argv[1].encode()
assert document(client.put(f"/diagnostics/runs/{run['run_id']}/pin/", **strict))["pinned"] is True
refused = client.put(
    f"/diagnostics/runs/{run['run_id']}/pin/", HTTP_HOST="localhost", headers={"Sec-Fetch-Site": "cross-site"}
)
assert refused.status_code == 403
print("done")
"""


def test_staff_alone_reach_it(site: Site, tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(# urls\.py\n.*?)```", INTEGRATIONS.read_text("utf-8"), re.DOTALL)
    (tmp_path / "urls.py").write_text(code)
    site.publish("a/b", [memory_artifact()])

    done = subprocess.run(
        [sys.executable, "-c", PROJECT, MEMORY.decode()],
        cwd=tmp_path,
        env={
            "PATH": "",
            "PYTHONPATH": python_path(tmp_path),
            "DRAMATIQ_DIAG_DATA_DIR": str(site.settings.data_dir),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
