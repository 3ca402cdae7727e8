"""A real API server on etcd, on loopback: it stores and judges objects, and no
pod ever runs, for there is no node."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

TOKEN = "loopback-only"
READY_WITHIN = 90


def free_port():
    """Returns a port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ControlPlane:
    """etcd and kube-apiserver; to be used in a `with`."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="brucke-cluster-"))
        self.processes = []
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder)

    def _start(self):
        etcd, peer, self.port = free_port(), free_port(), free_port()
        self._run(
            "etcd",
            "etcd",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        )
        key = self.folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        self._run(
            "kube-apiserver",
            os.environ["KUBE_APISERVER"],
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder}/certificates",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/16,fd00::/108",
        )
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(self._kubeconfig()))
        self._wait()

    def _run(self, name, *command):
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [*map(str, command)], stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
            )
        self.processes.append(process)

    def _kubeconfig(self):
        certificate = self.folder / "certificates" / "apiserver.crt"
        server = f"https://127.0.0.1:{self.port}"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
            "clusters": [
                {
                    "name": "here",
                    "cluster": {"server": server, "certificate-authority": str(certificate)},
                }
            ],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
        }

    def _wait(self):
        end = time.monotonic() + READY_WITHIN
        while True:
            for process in self.processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{process.args[0]} ended:\n{self._logs()}")
            done = subprocess.run(
                [os.environ["KUBECTL"], "--kubeconfig", self.kubeconfig, "get", "--raw", "/readyz"],
                capture_output=True, text=True, check=False,
            )
            if done.returncode == 0:
                return
            if time.monotonic() > end:
                raise RuntimeError(f"not ready in {READY_WITHIN} s: {done.stderr}\n{self._logs()}")
            time.sleep(0.2)

    def _logs(self):
        return "\n".join(path.read_text()[-4000:] for path in self.folder.glob("*.log"))
