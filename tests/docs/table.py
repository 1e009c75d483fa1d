"""How each command of the pages is run. One that is named nowhere here is run as it stands, and must end with 0.

To be extended with a page: a command that needs more than the lab of tests/docs/lab.py has (a tracker, another
package) goes to ELSEWHERE, by the test that runs it, or, where none can, to NEVER, by the reason. Its options are held
against its own --help all the same. Patterns are those of fnmatch; one that fits no command any more is an error.
"""

from __future__ import annotations

from typing import NamedTuple


class How(NamedTuple):
    """``more``: words added; ``instead``: words (or parts of them) by what stands in their place; ``until``: a command
    without an end is interrupted once something of this stream is learned; ``code``: it ends with."""

    more: tuple[str, ...] = ()
    instead: dict[str, str] = {}  # noqa: RUF012
    until: str | None = None
    code: int = 0


LIVE = {"record/live-1/": "live-1", 'api.events("s1")': "s1"}
"""Programs that have this in them wait for something new: a stream of that name comes in while they run."""
AS_IT_STANDS = How()
SERVED = "rjepa serve --weights * --data-dir session-1"
"""The lab's own server: begun by these words, with random weights in place of a lab's."""

RUN = {
    "rjepa doctor": How(more=("--cameras", "0", "--within", "10")),  # no camera's light goes on
    "rjepa stream recording --video scene.mp4 --gaze gaze.csv *": How(more=("--speed", "max")),
    "rjepa stream recording gaze.csv --video scene.mp4 *": How(more=("--speed", "max", "--stream", "anna-1")),
    "rjepa stream simulated scene.mp4 --loop *": How(until="nobody"),
    "curl * s1.arrows *": How(instead={"/s1/": "/anna-1/"}),
    "rjepa backup *": How(instead={"/backup/": "backups/"}),
    "rjepa pair *": How(instead={"session-1": "session-2"}),  # what is made there is in force at once
    "rjepa token add *": How(instead={"session-1": "session-2"}),
}

_DOOR = (
    "tests/service/test_door_process.py::test_with_keys_on_only_the_right_key_gets_anything_in_and_to_its_own_streams"
)
_PUPIL_CORE = "tests/clients/test_pupil_core.py"
_FORMATS = "tests/clients/test_formats.py::test_the_fixations_of_every_format"
_EXPERIMENTS = "tests/service/test_experiment_streams.py"
_FIGURES = "tests/service/test_figures.py"
_COMPARE = "tests/service/test_compare.py"
ELSEWHERE = {
    "make demo": "tests/end_to_end/test_demo.py::test_demo_ends_by_itself_with_a_summary",
    "make site": "tests/docs/test_site.py::test_it_is_built_without_a_warning",
    "pip install .": "tests/soak/test_client_install.py::test_the_base_install",
    "rjepa serve * --ingest tcp://0.0.0.0:5555 *": _DOOR,
    "rjepa stream simulated sample --pair *": _DOOR,
    "rjepa doctor --pair *": "tests/end_to_end/test_doctor.py::test_at_a_worker_with_keys",
    "rjepa learn --from *": "tests/service/test_learn.py::test_a_journal_is_learned_and_its_rows_are_kept_and_told",
    "rjepa learn --video *": "tests/service/test_learn.py::test_recordings_by_the_command",
    "rjepa learn --recordings *": "tests/service/test_learn.py::test_recordings_by_the_command",
    "rjepa stream pupil-core 127.*": f"{_PUPIL_CORE}::test_every_planted_fixation_once_on_its_own_frame",
    "rjepa stream pupil-core * --detector tracker": f"{_PUPIL_CORE}::test_their_fixations_count_once",
    "rjepa stream lsl *": "tests/clients/test_lsl.py::test_found_described_streamed_lost_and_found_again",
    "rjepa stream neon *": "tests/clients/test_neon.py::test_bytes_of_the_device_become_fixations_on_their_frames",
    "rjepa stream camera *": f"{_PUPIL_CORE}::test_a_patch_covers_five_degrees_through_capture_and_through_a_camera",
    "rjepa stream recording PATH": _FORMATS,
    "rjepa stream recording ~/*": _FORMATS,
    "rjepa stream recording *.tsv* --video film.mp4*": _FORMATS,
    "rjepa stream recording anna.asc *": "tests/clients/test_formats.py::test_the_video_begins_at_a_message",
    "rjepa stream recording sub-30_*": "tests/clients/test_formats.py::test_a_video_is_looped_under_longer_gaze",
    "rjepa stream recording viewer.mat *": "tests/clients/test_recording.py::test_andersson",
    "python -m clients.detection_table *": "tests/clients/test_agreement.py::"
    "test_the_detectors_of_the_table_on_one_recording",
    "rjepa experiment world": "tests/service/test_experiment.py::test_the_command_writes_its_rows_and_its_table",
    "rjepa experiment world --show *": "tests/service/test_experiment.py::test_a_picture_of_a_world",
    "rjepa experiment fidelity": "tests/service/test_experiment_fidelity.py::test_fidelity_has_a_row_for_each_setting",
    "rjepa experiment learning": f"{_EXPERIMENTS}::test_figure_four_is_told_beside_bptt",
    "rjepa experiment alignment*": f"{_FIGURES}::test_an_experiment_draws_what_it_ran_and_goes_on_from_it",
    "rjepa experiment fidelity --figures *": f"{_FIGURES}::test_an_experiment_draws_what_it_ran_and_goes_on_from_it",
    "rjepa experiment draw *": f"{_FIGURES}::test_rows_become_json_pictures_and_a_page",
    "rjepa experiment compare CHECKPOINT CHECKPOINT *": f"{_COMPARE}::test_checkpoints_are_named_in_every_way",
    "rjepa experiment compare A B *": f"{_COMPARE}::test_the_rows_are_the_measures_and_a_second_run_finds_them",
    "rjepa experiment compare recorded *": f"{_COMPARE}::test_a_labs_own_recordings",
    "rjepa experiment compare session-1 session-1 *": f"{_COMPARE}::test_every_layer_is_what_it_is_called",
    "rjepa experiment compare v1.npy *": f"{_COMPARE}::test_arrays_are_read_as_they_are",
    "rjepa experiment collapse *": f"{_EXPERIMENTS}::test_collapse_tells_what_was_said",
    "rjepa experiment streams *": f"{_EXPERIMENTS}::test_one_command_makes_every_stream",
    "rjepa experiment endless *": f"{_EXPERIMENTS}::test_an_endless_run_goes_on_where_it_ended",
    "rjepa experiment participants *": f"{_EXPERIMENTS}::test_participants_have_a_row_for_each_arrangement",
    "rjepa experiment scenes *": "tests/service/test_experiment_scenes.py::"
    "test_scenes_has_a_row_for_each_learner_and_each_difference",
}
"""By the test that runs the command, or what it does."""

NEVER = {
    "make test": "it is what runs this",
    "pip install '*'": "needs a package index; the extras it names are looked for in pyproject.toml",
    "docker *": "needs a container engine; services and profiles are looked for in docker-compose.yml",
}
"""What no test runs, and why."""
