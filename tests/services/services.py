"""Services in their own processes and folders: PostgreSQL, a stand-in for S3, MLflow's server on both."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from servers import Server, free_port

BUCKET = "digitlab"
PASSWORD = "pass-Word-7-long"  # MLflow wants twelve characters
AUTH = """[mlflow]
default_permission = MANAGE
database_uri = sqlite:///{folder}/auth.db
admin_username = admin
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def missing() -> str:
    """Say what is not installed that the services need; "" where all is there."""
    packages = [each for each in ("psycopg2", "boto3", "moto", "flask_wtf") if find_spec(each) is None]
    programs = [] if _programs() else ["postgresql, of the system's packages"]
    return ", ".join([*packages, *programs])


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, which Debian keeps out of PATH."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: int(each.parent.name))
    return folders[-1] if folders else Path(found).parent if found else None


def wait_until(is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(Exception):
            if is_ready():
                return
        time.sleep(0.2)
    raise TimeoutError(is_ready)


class Postgres:
    """A PostgreSQL in a folder of its own. It refuses root, for whom the user that its package made runs it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's are root's alone
        self.data, self.port, self.programs = self.folder / "data", free_port(), _programs()
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        self._call("initdb", "-D", self.data, "-U", "digitlab", "--auth=trust", "--no-sync").wait()
        self.uri = f"postgresql+psycopg2://digitlab:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        self.start()

    def _call(self, program: str, *arguments: object) -> subprocess.Popen:
        assert self.programs
        command = [self.programs / program, *map(str, arguments)]
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(command, user=self.user, cwd=self.folder, stdout=nowhere, stderr=nowhere)

    def run(self, program: str, *arguments: str, given: bytes = b"") -> bytes:
        """Return what one of PostgreSQL's programs says of this database, `given` its input."""
        assert self.programs
        there = f"-h 127.0.0.1 -p {self.port} -U digitlab".split()
        done = subprocess.run([self.programs / program, *there, *arguments], input=given, capture_output=True, cwd="/")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -p {self.port}"
        self.process = self._call("postgres", "-D", self.data, *options.split())
        wait_until(lambda: self._call("pg_isready", "-h", "127.0.0.1", "-p", self.port).wait() == 0)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # a fast shutdown: whoever is connected is sent away
        self.process.wait()

    def close(self) -> None:
        """End it, and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder)

    def restart(self, seconds: float = 5) -> None:
        self.stop()
        time.sleep(seconds)
        self.start()


class Bucket:
    """A stand-in for S3 with one bucket, and the variables of the environment by which it is reached."""

    def __init__(self) -> None:
        port = free_port()
        self.environment = {
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "digitlab",
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.environment["MLFLOW_S3_ENDPOINT_URL"],
            aws_access_key_id="digitlab",
            aws_secret_access_key=PASSWORD,
            region_name="us-east-1",
        )
        wait_until(lambda: bool(client.create_bucket(Bucket=BUCKET)))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def be_silent(self, seconds: float = 8) -> None:
        """Answer nothing for a while."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)


def mlflow_server(folder: Path, postgres: Postgres, bucket: Bucket, is_proxied: bool, has_auth: bool) -> Server:
    """Return MLflow's server on both: artifacts go through it, or directly to the bucket; with passwords or not."""
    folder.mkdir()
    place = f"s3://{BUCKET}/{folder.name}"
    artifacts = (
        f"--serve-artifacts --artifacts-destination {place}"
        if is_proxied
        else f"--no-serve-artifacts --default-artifact-root {place}"
    )
    command = f"mlflow server --backend-store-uri {postgres.uri} {artifacts} --host 127.0.0.1 --workers 1".split()
    environment = os.environ | bucket.environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if has_auth:
        (folder / "auth.ini").write_text(AUTH.format(folder=folder, password=PASSWORD))
        command += ["--app-name", "basic-auth"]
        environment |= {"MLFLOW_AUTH_CONFIG_PATH": f"{folder}/auth.ini", "MLFLOW_FLASK_SERVER_SECRET_KEY": PASSWORD}
    return Server([sys.executable, "-m", *command, "--port", "{port}"], folder, environment)
