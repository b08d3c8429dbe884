"""Scripts for clusters: what they run is what was typed, whatever it holds; their structure; requeueing; refusals.

Shell scripts are run with stubs of the system's commands; YAML is read back and compared whole.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from absl import flags

from experiments import main
from experiments.launch import scripts

NASTY = ["--config=readiness:digits", "--config.name=it's \"$(HOME)\" `x` \\ # é: {{ y }}",
         "--config.request.unlearners=('npo', 'rmu')", "--workdir=/mnt/my runs/a b"]  # fmt: skip
STUB = f"""#!{sys.executable}
import json, pathlib, sys
me = pathlib.Path(sys.argv[0])
with (me.parent / "calls").open("a") as file:
    file.write(json.dumps([me.name, *sys.argv[1:]]) + "\\n")
"""
KINDS = {
    "slurm": [],
    "kubernetes": ["--image=us.gcr.io/a/b:c", "--claim=runs"],
    "jobset": ["--image=us.gcr.io/a/b:c", "--claim=runs"],
    "tpu": ["--tpu=my-tpu", "--zone=us-east1-d"],
    "skypilot": ["--accelerators=H100:8"],
}


def called(*words):
    return main.command(["forethought", "launch", *map(str, words)], flags.FlagValues())


def script(capsys, kind, *options, words=NASTY):
    assert called(kind, *KINDS[kind], *options, "--dry-run", "--", *words) == 0
    return capsys.readouterr().out


@pytest.fixture
def stubs(tmp_path, monkeypatch):
    """Adds commands that note how they are called, or do as they are told; `stubs.calls()` reads the notes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    class Stubs:
        def add(self, name, content=STUB):
            (folder / name).write_text(content)
            (folder / name).chmod(0o755)

        def calls(self):
            notes = folder / "calls"
            return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []

    return Stubs()


# --- Quoting ----------------------------------------------------------------------------------------------------------


def test_slurm_hands_over_what_was_typed(capsys, stubs):
    stubs.add("srun")
    text = script(capsys, "slurm", "--nodes=2", "--sbatch=--partition=gpu", "--sbatch=--time=1:00:00")
    assert subprocess.run(["bash", "-c", text], check=False).returncode == 0
    assert stubs.calls() == [["srun", "--kill-on-bad-exit=1", "forethought", *NASTY]]
    head = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert head == ["--job-name=a-b", "--nodes=2", "--ntasks-per-node=1", "--signal=B:USR1@120", "--requeue",
                    "--open-mode=append", "--partition=gpu", "--time=1:00:00"]  # fmt: skip


def test_a_tpu_hands_over_what_was_typed_through_two_shells(capsys, stubs):
    stubs.add("gcloud")
    assert subprocess.run(["bash", "-c", script(capsys, "tpu")], check=False).returncode == 0
    ((*words, last),) = stubs.calls()
    assert words == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "my-tpu", "--zone=us-east1-d", "--worker=all"]
    stubs.add("forethought")
    subprocess.run(["sh", "-c", last.removeprefix("--command=")], check=True)
    assert stubs.calls()[1] == ["forethought", *NASTY]


def test_skypilot_hands_over_what_was_typed_and_says_which_process_it_is(capsys, stubs):
    task = yaml.safe_load(script(capsys, "skypilot", "--nodes=2"))
    run = task.pop("run")
    assert task == {"name": "a-b", "num_nodes": 2, "resources": {"accelerators": "H100:8"},
                    "setup": "pip install 'forethought[cuda,experiments]'"}  # fmt: skip
    stubs.add("forethought", STUB + "import os\nprint(*(os.environ['FORETHOUGHT_' + n] for n in sys.argv[-1:] and "
              "('COORDINATOR', 'PROCESSES', 'PROCESS')))\n")  # fmt: skip
    sky = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
    done = subprocess.run(["bash", "-c", run], env={**os.environ, **sky}, capture_output=True, text=True, check=True)
    assert done.stdout == "10.0.0.1:8476 2 1\n" and stubs.calls() == [["forethought", *NASTY]]


def pod(nodes):
    """The specification of an Indexed Job."""
    escaped = [word.replace("$(", "$$(") for word in ["forethought", *NASTY]]  # Kubernetes takes $$( for $(
    mounted = [{"name": "runs", "mountPath": "/mnt/my runs"}]
    account = {"serviceAccountName": "forethought"} if nodes > 1 else {}
    env = {"env": [{"name": "FORETHOUGHT_PROCESSES", "value": "auto"}]} if nodes > 1 else {}
    return {
        "parallelism": nodes,
        "completions": nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                {"action": "Ignore", "onExitCodes": {"containerName": "run", "operator": "In", "values": [75]}},
            ]
        },
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 120,
                **account,
                "containers": [
                    {"name": "run", "image": "us.gcr.io/a/b:c", "command": escaped, **env, "volumeMounts": mounted}
                ],
                "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": "runs"}}],
            }
        },
    }  # fmt: skip


@pytest.mark.parametrize("nodes", [1, 4])
def test_kubernetes_gets_an_indexed_job(capsys, nodes):
    job = yaml.safe_load(script(capsys, "kubernetes", f"--nodes={nodes}"))
    assert job == {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a-b"}, "spec": pod(nodes)}
    made = yaml.safe_load(script(capsys, "jobset", f"--nodes={nodes}"))
    jobs = [{"name": "run", "replicas": 1, "template": {"spec": pod(nodes)}}]
    assert made == {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": "a-b"},
                    "spec": {"replicatedJobs": jobs}}  # fmt: skip


@pytest.mark.parametrize("given", [["--workdir", "/mnt/a"], ["--workdir=/mnt/b", "--workdir=/mnt/a"], ["--flagfile"]])
def test_the_workdir_is_the_one_that_the_run_would_take(capsys, tmp_path, given):
    (tmp_path / "flags").write_text("--workdir=/mnt/a\n")
    words = [f"{word}={tmp_path}/flags" if word == "--flagfile" else word for word in given]
    assert "#SBATCH --job-name=a\n" in script(capsys, "slurm", words=[NASTY[0], *words])


@pytest.mark.parametrize("kind", ["kubernetes", "jobset", "skypilot"])
@pytest.mark.parametrize(
    "folder, name",
    [
        ("No", "no"),
        ("2026-11-26", "run-2026-11-26"),
        ("1e5", "run-1e5"),
        ("é", "forethought"),
        ("a." * 60, "a-" * 22 + "a"),
    ],
)
def test_the_name_of_a_job_is_a_text_whatever_the_workdir_is_called(capsys, kind, folder, name):
    job = yaml.safe_load(script(capsys, kind, words=[NASTY[0], f"--workdir=/runs/{folder}"]))
    assert job.get("metadata", job)["name"] == name and len(name) <= 45


# --- Requeueing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status, requeued", [(75, True), (2, False)])
def test_usr1_reaches_the_run_and_status_75_queues_the_job_again(capsys, stubs, tmp_path, status, requeued):
    up = tmp_path / "up"
    stubs.add("scontrol")
    stubs.add("srun", '#!/bin/sh\nshift\nexec "$@"\n')
    stubs.add("forethought", f"#!/bin/sh\ntrap 'sleep 0.2; exit {status}' USR1\ntouch {up}\nwhile :; do sleep 0.02; done\n")
    text = script(capsys, "slurm")
    process = subprocess.Popen(["bash", "-c", text], env={**os.environ, "SLURM_JOB_ID": "17"})
    deadline = time.monotonic() + 20
    while not up.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == status
    assert stubs.calls() == ([["scontrol", "requeue", "17"]] if requeued else [])


def test_a_run_that_scancel_ended_is_not_queued_again(capsys, stubs):
    stubs.add("scontrol")
    stubs.add("srun", "#!/bin/sh\nexit 75\n")
    assert subprocess.run(["bash", "-c", script(capsys, "slurm")], check=False).returncode == 75 and not stubs.calls()


# --- Submitting -------------------------------------------------------------------------------------------------------


def test_a_script_is_written_and_submitted(capsys, stubs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stubs.add("sbatch", STUB + "sys.exit(3)\n")
    assert called("slurm", "--", *NASTY) == 3, "the status is sbatch's own"
    assert stubs.calls() == [["sbatch", "a-b.slurm.sh"]]
    assert (tmp_path / "a-b.slurm.sh").read_text() == script(capsys, "slurm")


def test_a_sweep_is_an_array_of_what_has_not_finished(capsys, stubs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stubs.add("sbatch")
    stubs.add("forethought")
    (tmp_path / "s 1" / "points" / "seed=10").mkdir(parents=True)
    (tmp_path / "s 1" / "points" / "seed=10" / "results.json").touch()
    words = [NASTY[0], "--grid=seed=0,10,20", f"--workdir={tmp_path / 's 1'}", "--slurm"]
    assert main.command(["forethought", "sweep", *words], flags.FlagValues()) == 0
    assert stubs.calls() == [["sbatch", "s-1.slurm.sh"]]
    text = (tmp_path / "s-1.slurm.sh").read_text()
    assert "#SBATCH --array=0-1\n" in text and "--nodes" not in text
    subprocess.run(["bash", "-c", text], env={**os.environ, "SLURM_ARRAY_TASK_ID": "1"}, check=True)
    assert stubs.calls()[1] == ["forethought", NASTY[0], "--config.seed=20", f"--workdir={tmp_path}/s 1/points/seed=20"]


@pytest.mark.parametrize(
    "given, said",
    [
        (["slurm"], "give the run's arguments after --"),
        (["slrum", "--", *NASTY], "invalid choice: 'slrum'"),
        (["slurm", "--nodes=0", "--", *NASTY], "'0' is no whole number from 1 to 10000"),
        (["slurm", "--sbatch=gpu", "--", *NASTY], "'gpu' is no option of sbatch"),
        (["slurm", "--name=A b", "--", *NASTY], "'A b' is no name of a job"),
        (["slurm", "--", NASTY[0]], "give --config=readiness:digits and --workdir=DIR"),
        (["slurm", "--", *NASTY, "--config.seeds=0"], "config.seeds is 0"),
        (["slurm", "--", *NASTY, "--config.name=a\nb"], "has a character that is not printed"),
        (
            ["slurm", "--nodes=2", "--", "--config=pretrain:digits", "--workdir=runs/a"],
            "--nodes is 2, and pretrain, which trains one model, does not share its work between processes, as readiness, "
            "judge, s3t, judge_exact and federated do: leave it out",
        ),
        (["slurm", "--", *NASTY], "sbatch is not here: launch where it is, or use --dry-run"),
        (["kubernetes", "--", *NASTY], "the following arguments are required: --image, --claim"),
        (["kubernetes", *KINDS["kubernetes"], "--", NASTY[0], "--workdir=runs/a"], "--workdir=runs/a is not in a folder"),
        (["kubernetes", *KINDS["kubernetes"], "--", NASTY[0], "--workdir=/a"], "--workdir=/a is not in a folder"),
        (["slurm", "--name=1a", "--", *NASTY], "'1a' is no name of a job"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(capsys, tmp_path, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scripts.shutil, "which", lambda program: None)
    assert called(*given) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not list(tmp_path.iterdir())
