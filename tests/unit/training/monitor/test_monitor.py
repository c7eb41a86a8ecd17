"""Log lines, alarms, throughput, trackers, and the pictures of the report."""

import json
import math
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import values, write_tiles

from pathencoder.errors import ConfigError, MissingExtra
from training import config, report
from training.methods import dino, simclr
from training.monitor import alarms as rules
from training.monitor import retrieval, trackers
from training.monitor.alarms import Alarms
from training.monitor.collapse import FirstFeatures
from training.monitor.log import Monitor, read_log
from training.pretrain import train
from training.publishing import made_with
from training.trainer import throughput

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiles").mkdir()
    asked = values(write_tiles(folder / "tiles"), folder / "run", "dino")
    asked["data"]["batch"] = 12  # fewer give no rank
    return train(config.check(asked))


def raised(values, *, steps=(200, 210, 220, 230), chance=None):
    alarms = Alarms(chance=chance)
    return [name for step in steps for name, _ in alarms.check(step, values)]


HEALTHY = {
    "loss": 2.0,
    "rankme": 30.0,
    "feature_std": 0.6,
    "teacher_entropy": 0.6,
    "mean_entropy": 0.9,
    "grad_norm": 1.0,
    "data_wait": 0.01,
}


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("rank collapsed", {"rankme": 1.2}),
        ("features collapsed", {"feature_std": 0.001}),
        ("few prototypes", {"mean_entropy": 0.2}),
        ("teacher certain", {"teacher_entropy": 0.02}),
        ("teacher uniform", {"teacher_entropy": 0.999}),
        ("NT-Xent at chance", {"loss": math.log(2 * 64 - 1)}),
        ("data too slow", {"data_wait": 0.5}),
    ],
)
def test_each_alarm_is_raised_once_for_its_own_sign(name, sign):
    chance = simclr.Settings().chance_loss(64)
    assert raised(HEALTHY, chance=chance) == []
    assert raised({**HEALTHY, **sign}, chance=chance) == [name]
    assert raised({**HEALTHY, **sign}, steps=(200, 210), chance=chance) == []


def test_an_alarm_has_the_figure_and_a_setting_and_is_repeated_after_a_pause():
    alarms = Alarms()
    bad = {**HEALTHY, "rankme": 1.2}
    words = [w for step in range(3) for _, w in alarms.check(step, bad)]
    assert len(words) == 1
    assert "1.2 directions" in words[0]
    assert "method.head_norm" in words[0]
    assert [n for n, _ in alarms.check(3, bad)] == []
    list(alarms.check(4, HEALTHY))
    assert [n for step in range(5, 8) for n, _ in alarms.check(step, bad)] == ["rank collapsed"]


def test_a_uniform_teacher_is_no_sign_in_the_first_steps():
    assert raised({**HEALTHY, "teacher_entropy": 1.0}, steps=(10, 20, 30, 40)) == []


def test_an_exploding_gradient_is_compared_with_earlier_ones():
    alarms = Alarms()
    for step in range(10):
        assert list(alarms.check(step, HEALTHY)) == []
    ((name, words),) = alarms.check(10, {**HEALTHY, "grad_norm": 30.0})
    assert name == "gradient explodes"
    assert "optim.lr" in words
    assert list(alarms.check(11, {**HEALTHY, "grad_norm": math.nan})) == []


def test_knn_below_its_start_is_an_alarm():
    alarms = Alarms()
    start = {"knn_a": 0.7, "knn_b": 0.5, "rankme": 30.0}
    assert list(alarms.check_knn(0, start)) == []
    # one set may fall where another rises
    assert list(alarms.check_knn(50, {"knn_a": 0.58, "knn_b": 0.55})) == []
    ((name, words),) = alarms.check_knn(100, {"knn_a": 0.6, "knn_b": 0.45})
    assert name == "k-NN below its start"
    assert "knn_a 0.700 to 0.600, knn_b 0.500 to 0.450" in words
    assert "optim.lr" in words


def test_a_resumed_run_compares_knn_with_step_0():
    lines = [
        {"kind": "knn", "step": 0, "knn_a": 0.7},
        {"kind": "train", "step": 5, "loss": 1.0},
        {"kind": "knn", "step": 100, "knn_a": 0.5},
    ]
    assert [n for n, _ in Alarms(log=lines).check_knn(200, {"knn_a": 0.6})] == [
        "k-NN below its start"
    ]
    assert list(Alarms().check_knn(200, {"knn_a": 0.1})) == []  # no start is known


def test_a_run_whose_knn_falls_says_so(tmp_path, monkeypatch, caplog):
    (tmp_path / "tiles").mkdir()
    asked = values(write_tiles(tmp_path / "tiles"), tmp_path / "run", "simclr")
    rows = [f"tiles/s{i}/0.png,{i % 2},s{i},train\n" for i in range(6)]
    (tmp_path / "labels.csv").write_text("file,label,group,split\n" + "".join(rows))
    asked["run"] |= {"knn_sets": [str(tmp_path)], "checkpoint_every": 3}
    asked["optim"]["steps"] = 3
    found = iter([0.8, 0.79, 0.79, 0.2])
    monkeypatch.setattr("training.trainer.reporter.labelled_set", lambda *_, **__: None)
    monkeypatch.setattr(
        "training.trainer.reporter.knn_report", lambda *_: {"knn_a": next(found), "rankme": 9.0}
    )
    train(config.check(asked))
    assert "k-NN below" not in caplog.text
    run = train(config.check(asked))  # it is finished: k-NN at its end again
    lines = [line for line in read_log(run) if line["kind"] == "alarm"]
    assert [line["alarm"] for line in lines] == ["k-NN below its start"]
    assert "knn_a 0.800 to 0.200" in caplog.text


@pytest.mark.parametrize("rule", [r for r in rules._RULES if r.name != "data too slow"])
def test_every_alarm_about_learning_names_the_rate(rule):
    assert "optim.lr" in rule.text


def test_only_nt_xent_has_a_chance_level():
    assert simclr.Settings().chance_loss(64) == pytest.approx(math.log(127))
    assert dino.Settings().chance_loss(64) is None


def test_throughput_separates_waiting_from_work(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throughput.time, "monotonic", lambda: now[0])

    def pass_by(seconds):
        now[0] += seconds

    def loader():
        for i in range(4):
            pass_by(1)
            yield i

    clock, looks = throughput.Throughput(batch=10), []
    for i in clock.timed(loader()):
        pass_by(3)
        if i in (1, 3):
            looks.append(clock.measure())
            pass_by(50)
            clock.restart()  # k-NN, say
    # The wait for the first batch does not count: two steps and one wait, then two steps and two
    # waits.
    assert looks == [
        (pytest.approx(20 / 7), pytest.approx(1 / 7)),
        (pytest.approx(20 / 8), pytest.approx(2 / 8)),
    ]


def test_features_of_the_first_views_are_kept_only_on_request():
    net = torch.nn.Linear(4, 8)
    features = FirstFeatures(net)
    net(torch.randn(9, 4))
    assert features.spread(9) == {}
    features.want(wanted=True)
    net(torch.ones(18, 4))  # the first pass of the step is the one
    net(torch.randn(18, 4))
    assert features.spread(9)["feature_std"] == pytest.approx(0, abs=1e-5)
    assert features.spread(5) == {}  # too few
    features.want(wanted=False)
    assert features.spread(9) == {}


def test_a_line_is_json_whatever_the_figures(tmp_path, caplog):
    monitor = Monitor(tmp_path)
    monitor.write("train", 3, {"loss": math.nan, "lr": 1e-4})
    monitor.close()
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert (line["kind"], line["step"], line["loss"], line["lr"]) == ("train", 3, None, 1e-4)
    assert {"wall_s", "cpu_s"} <= line.keys()
    Monitor(None).write("train", 3, {"loss": 1.0})  # as in the other processes
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_half_a_line_costs_no_other_line(tmp_path, caplog):
    half = '{"kind": "train", "step": 2, "lo'
    (tmp_path / "log.jsonl").write_text('{"kind": "train", "step": 1}\n' + half)
    monitor = Monitor(tmp_path)
    monitor.write("train", 2, {"loss": 2.0}, words="")
    monitor.write("train", 3, {"loss": 3.0}, words="")
    monitor.close()
    assert (tmp_path / "log.jsonl").read_text().splitlines()[1] == half
    assert [(line["step"], line.get("loss")) for line in read_log(tmp_path)] == [
        (1, None),
        (2, 2.0),
        (3, 3.0),
    ]
    assert "log.jsonl: skipped line 2: not whole" in caplog.text


def test_the_cost_of_a_resumed_run_is_that_of_all_its_processes(tmp_path):
    clocks = [(2, 10.0, 4.0), (4, 20.0, 8.0), (3, 5.0, 2.0), (4, 9.0, 9.0), (6, 12.0, 1.5)]
    (tmp_path / "log.jsonl").write_text(
        "".join(
            json.dumps({"kind": "train", "step": step, "cpu_s": cpu, "wall_s": wall}) + "\n"
            for step, cpu, wall in clocks
        )
    )
    (tmp_path / "config.yaml").write_text("method: {name: dino}\n")
    found = made_with.cost([tmp_path, tmp_path])
    assert found["steps"] == [6, 6]
    # the last process began when the clock of one that was slower to start had gone further
    assert (found["cpu_seconds"], found["wall_seconds"]) == (2 * 41.0, 2 * 18.5)


def test_a_log_of_whole_lines_gets_no_empty_line(tmp_path, caplog):
    for step in (1, 2):
        monitor = Monitor(tmp_path)
        monitor.write("train", step, {}, words="")
        monitor.close()
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 2
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]
    assert caplog.text == ""


@pytest.mark.parametrize("line", ["", "7", "{}", '{"kind": "train"}', '"\\ud8', "\x00\x00"])
def test_a_line_that_is_no_line_of_a_log_is_skipped(tmp_path, caplog, line):
    (tmp_path / "log.jsonl").write_text(line + '\n{"kind": "train", "step": 1}\n')
    assert [line["step"] for line in read_log(tmp_path)] == [1]
    assert "skipped line 1" in caplog.text


def test_a_run_logs_every_figure_and_a_line_for_people(run, caplog):
    lines = [json.loads(t) for t in (run / "log.jsonl").read_text().splitlines()]
    expected = {
        "loss",
        "teacher_entropy",
        "mean_entropy",
        "rankme",
        "feature_std",
        "grad_norm",
        "lr",
        "weight_decay",
        "momentum",
        "teacher_temperature",
        "precision",
        "processes",
        "tiles_per_s",
        "data_wait",
        "memory_mb",
    }
    assert all(expected <= line.keys() for line in lines if line["kind"] == "train")
    assert all(0 <= line["data_wait"] <= 1 for line in lines if line["kind"] == "train")


def test_a_tracker_that_is_not_installed_is_an_error_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        MissingExtra, match=r"run\.tensorboard=true needs .*pathencoder\[trackers\]"
    ):
        trackers.TensorBoard(tmp_path)
    with pytest.raises(MissingExtra, match=r"run\.wandb=mine needs .*pathencoder\[trackers\]"):
        trackers.WandB(tmp_path, "mine", {})


def wandb_that_keeps(sent, step):
    """A W&B whose run was resumed at a step: older figures are there already."""

    def init(**asked):
        def log(values, step):
            sent.append((step, values))

        return types.SimpleNamespace(
            log=log, finish=lambda: sent.append("end"), step=step, asked=asked
        )

    return types.SimpleNamespace(init=init)


def test_trackers_get_the_finite_numbers(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setitem(sys.modules, "wandb", wandb_that_keeps(sent, 0))
    monitor = Monitor(tmp_path, [trackers.WandB(tmp_path, "mine", {"seed": 0})])
    monitor.write("train", 7, {"loss": 1.5, "grad_norm": math.inf, "culprit": "x"})
    monitor.close()
    assert sent == [(7, {"train/loss": 1.5}), "end"]


def test_a_resumed_run_sends_no_step_to_wandb_twice(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setitem(sys.modules, "wandb", wandb_that_keeps(sent, 8))
    one, other = (trackers.WandB(tmp_path, "mine", {}) for _ in range(2))
    for step in (6, 7, 8, 9):
        other.write("train", step, {"loss": 1.0})
    assert [step for step, _ in sent] == [8, 9]
    assert one._run.asked["id"] == other._run.asked["id"]
    (tmp_path / "elsewhere" / tmp_path.name).mkdir(parents=True)
    third = trackers.WandB(tmp_path / "elsewhere" / tmp_path.name, "mine", {})
    assert third._run.asked["id"] != one._run.asked["id"]  # of a folder of the same name


def test_tensorboard_hides_what_a_resumed_run_repeats(tmp_path, monkeypatch):
    asked = []
    fake = types.SimpleNamespace(SummaryWriter=lambda folder, **k: asked.append(k))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    trackers.TensorBoard(tmp_path)
    trackers.TensorBoard(tmp_path, first_step=40)
    assert asked == [{"purge_step": 0}, {"purge_step": 41}]


def test_the_report_draws_the_k_nn_of_a_control_beside_that_of_the_run(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "training.report.save_figure", lambda figure, *_, **__: drawn.append(figure)
    )
    for name, accuracies in (("run", (0.3, 0.6)), ("control", (0.3, 0.4))):
        (tmp_path / name).mkdir()
        lines = [{"kind": "train", "step": 1, "loss": 2.0}]
        lines += [{"kind": "knn", "step": i, "knn_a": v} for i, v in enumerate(accuracies)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "log.jsonl").write_text(text)
    report.curves(tmp_path / "run", tmp_path / "x.png", control=tmp_path / "control")
    loss, knn = (axis for axis in drawn[0].axes if axis.get_title().startswith(("loss", "k-NN")))
    assert len(loss.lines) == 1
    assert [list(line.get_ydata()) for line in knn.lines] == [[0.3, 0.6], [0.3, 0.4]]
    assert knn.lines[1].get_linestyle() == "--"
    assert [t.get_text() for t in knn.get_legend().get_texts()] == ["a", "a, control at rate 0"]


def test_the_report_draws_both_pictures(run, tmp_path):
    with (run / "log.jsonl").open("a") as file:
        file.write(
            '{"kind": "alarm", "step": 4, "alarm": "rank collapsed", "words": "x"}\n{"kind": "tra'
        )
    assert report.main([str(run), str(tmp_path / "out")]) == 1
    assert report.main([str(tmp_path / "no run")]) == 1
    assert list(tmp_path.iterdir()) == []  # a report creates no folder
    (tmp_path / "out").mkdir()
    assert report.main([str(run), str(tmp_path / "out")]) == 0
    for name in ("curves", "retrieval"):
        picture = np.asarray(Image.open(tmp_path / f"out/{name}.png").convert("RGB"))
        assert picture.shape[0] > 300
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert report.main([]) == 2
    assert report.main([str(run), "--control"]) == 2  # without a run
    assert report.main([str(tmp_path)]) == 1
    with pytest.raises(ConfigError, match="no export yet"):
        retrieval.retrieval(tmp_path, tmp_path / "x.png")


def test_a_gap_is_drawn_as_one_and_a_repeated_step_once(tmp_path):
    lines = [
        '{"kind": "train", "step": 1, "loss": 3.0}',
        '{"kind": "train", "step": 2, "loss": null}',
        '{"kind": "train", "step": 1, "loss": 2.0}',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    points = report._points(read_log(tmp_path), "train", "loss")
    assert points[0] == (1, 2.0)
    assert math.isnan(points[1][1])


def test_every_number_of_a_training_line_is_drawn():
    line = {"kind": "train", "step": 1, "loss": 3.0, "lr": 1.0, "data_wait": 0.1, "cpu_s": 3.0}
    lines = [line, {**line, "step": 2, "patch_loss": 2.0, "koleo": 1.0, "culprit": "x"}]
    assert [p.name for p in report._others(lines)] == ["patch_loss", "koleo"]
    named = {p.name for p in report._PANELS if p.kind == "train"}
    assert {"loss", "lr", "data_wait"} <= named


def test_neighbours_are_of_other_slides():
    rows = np.array([[1, 0], [0.99, 0.1], [0.9, 0.4], [0, 1]], dtype=np.float32)
    found = retrieval.neighbours(rows, np.array([0, 0, 1, 2]), np.array([0]), 3)
    assert [i for i, _ in found[0]] == [2, 3]
    assert found[0][0][1] == pytest.approx(0.914, abs=1e-3)
