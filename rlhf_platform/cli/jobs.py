"""`rlhf submit`, `status`, `logs` and `stop`: runs on a Ray cluster, and local ones by their folder."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_platform.cli.app import INTERRUPTED, Overrides, RecipePath, app, plain_errors
from rlhf_platform.errors import ClusterError, RecipeError

if TYPE_CHECKING:
    from rlhf_platform.jobs.client import Client
    from rlhf_platform.recipe.files import RecipeFiles
    from rlhf_platform.recipe.load import LoadedRecipe

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="The dashboard of a Ray head; default RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265.",
    ),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="A submission id, or the folder of a run on this machine.")]


@app.command()
def submit(
    recipe: RecipePath,
    overrides: Overrides = None,
    address: Address = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once Ray has the job.")] = False,
    kuberay: Annotated[bool, typer.Option("--kuberay", help="Print a KubeRay RayJob instead of submitting.")] = False,
    image: Annotated[str, typer.Option("--image", help="With --kuberay: the image of the pods.")] = "rlhf-platform:cpu",
    storage_claim: Annotated[
        str | None,
        typer.Option("--storage-claim", metavar="NAME", help="With --kuberay: the volume claim mounted at /shared."),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option("--secret", metavar="NAME", help="With --kuberay: the Secret with what the recipe reads."),
    ] = None,
) -> None:
    """Check a recipe in full, run it on a Ray cluster, and follow its log.

    Example: rlhf submit recipes/asr/quickstart.yaml steps=10 --address http://HOST:8265
    """
    with plain_errors():
        from rlhf_platform.cli.checks import load_checked

        for text in overrides or []:
            if text.startswith("cluster.address=") and text != "cluster.address=auto":
                value = text.partition("=")[2]
                message = f"cluster.address is {value}: a job runs in the cluster that takes it; leave the key out"
                raise RecipeError(message)
        loaded = load_checked(recipe, [*(overrides or []), "cluster.address=auto"], _without_paths_elsewhere)
        if kuberay:
            _print_manifest(loaded, image, storage_claim, secret)
            return

        from rlhf_platform.jobs.client import connect
        from rlhf_platform.jobs.submission import next_commands
        from rlhf_platform.jobs.submission import submit as hand_in
        from rlhf_platform.recipe.files import recipe_files

        files = recipe_files(loaded, Path.cwd())
        client = connect(address)
        _note(files)
        submission_id = hand_in(client, files)
        typer.echo(f"submitted {submission_id}")
        if detach:
            for command in next_commands(submission_id, client.shown_address):
                typer.echo(f"  {command}")
            return
        _follow(client, submission_id)


@app.command()
def status(job: Job = "", address: Address = None) -> None:
    """Say how far a job or a local run is; without JOB, list the platform's jobs of the cluster.

    Example: rlhf status runs/asr-quickstart
    """
    with plain_errors():
        from rlhf_platform.jobs import local_run

        if local_run.is_run_folder(job):
            typer.echo("\n".join(local_run.status_lines(Path(job))))
            return

        from rlhf_platform.jobs.report import job_lines, list_lines

        client = _connect(job, address)
        lines = job_lines(client.job(job)) if job else list_lines(client.list_jobs(), client.shown_address)
        typer.echo("\n".join(lines))


@app.command()
def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job's end; exits as it did.")] = False,
    address: Address = None,
) -> None:
    """Print the log of a job; of a local run its log, else the last lines of its metrics.

    Example: rlhf logs runs/asr-quickstart
    """
    with plain_errors():
        from rlhf_platform.jobs import local_run

        if local_run.is_run_folder(job):
            if follow:
                raise ClusterError(f"{job}: --follow is for jobs of a cluster; use tail -f {job}/metrics.jsonl")
            typer.echo("\n".join(local_run.log_lines(Path(job))))
            return

        client = _connect(job, address)
        if follow:
            client.job(job)
            _follow(client, job)
            return
        with client.named(job):
            typer.echo(client.get_job_logs(job), nl=False)


@app.command()
def stop(job: Job, address: Address = None) -> None:
    """End a job or a local run; it notes how far it came.

    Example: rlhf stop runs/asr-quickstart
    """
    with plain_errors():
        from rlhf_platform.jobs import local_run

        if local_run.is_run_folder(job):
            typer.echo(f"{job}: {local_run.stop(Path(job))}")
            return

        from rlhf_platform.jobs.report import job_lines
        from rlhf_platform.jobs.submission import stop as end

        client = _connect(job, address)
        typer.echo("\n".join(job_lines(end(client, job))))


def _connect(job: str, address: str | None) -> "Client":
    """Raises ClusterError at once for a path, which is no submission id."""
    if "/" in job or (Path(job).is_dir() and job):
        raise ClusterError(f"{job}: no run's folder, it has no status.json; name runs/NAME, or a submission id")

    from rlhf_platform.jobs.client import connect

    return connect(address)


def _follow(client: "Client", submission_id: str) -> None:
    """Ctrl-C leaves the job running."""
    from rlhf_platform.jobs.submission import follow, next_commands

    try:
        code = follow(client, submission_id, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo(f"\n{submission_id} goes on; follow it again, or stop it:", err=True)
        for command in next_commands(submission_id, client.shown_address, ("logs", "stop")):
            typer.echo(f"  {command}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if code:
        from rlhf_platform.jobs.report import job_lines

        typer.secho("\n".join(job_lines(client.job(submission_id))[:1]), fg=typer.colors.RED, err=True)
        raise typer.Exit(code)


def _note(files: "RecipeFiles") -> None:
    """On stderr: what goes along, and what has to be there."""
    if files.rewards:
        typer.echo(f"uploaded: {', '.join(str(path) for path in files.rewards.values())}", err=True)
    paths = {"runs_dir": files.runs_dir, "cache_dir": files.cache_dir, **files.elsewhere}
    shown = ", ".join(f"{key} {path}" for key, path in paths.items())
    typer.echo(f"not uploaded, all machines must see the same: {shown}", err=True)
    if files.variables:
        names = ", ".join(files.variables)
        typer.echo(f"read on the cluster: {names}; set it where `ray start` runs", err=True)


def _print_manifest(loaded: "LoadedRecipe", image: str, claim: str | None, secret: str | None) -> None:
    from rlhf_platform.jobs.kuberay import STORAGE, Pods, manifest, storage_notes, unknown_memory
    from rlhf_platform.recipe.files import recipe_files

    if not claim:
        raise ClusterError("--storage-claim is missing: name the volume claim by which pods share data, cache and runs")
    files = recipe_files(loaded, Path(STORAGE))
    typer.echo(manifest(loaded.recipe, files, Pods(image, claim, secret)), nl=False)
    for key, path in storage_notes(files).items():
        typer.echo(f"{key} {path}: not in {STORAGE}; the image must hold it", err=True)
    if unknown_memory(loaded.recipe, files):
        typer.echo(f"backbone.path {loaded.recipe.backbone.path}: its size is unknown here; add its memory", err=True)


def _without_paths_elsewhere(loaded: "LoadedRecipe") -> "LoadedRecipe":
    """For the checks here: paths of a storage that this machine does not have are left to the job's own check."""

    def elsewhere(path: str | None) -> bool:
        return bool(path) and Path(str(path)).is_absolute() and not Path(*Path(str(path)).parts[:2]).exists()

    recipe = loaded.recipe
    data, backbone = recipe.data, recipe.backbone
    if elsewhere(data.manifest):
        data = dataclasses.replace(data, manifest=None, demo="digits")
    if elsewhere(backbone.path):
        backbone = dataclasses.replace(backbone, path="not-here/not-here")  # checked as a hub's name is
    return dataclasses.replace(loaded, recipe=dataclasses.replace(recipe, data=data, backbone=backbone))
