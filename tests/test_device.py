"""A card is noticed, the right torch build is named, and devices are chosen or refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from floodem import cards
from floodem.cards import Card, advise, find_card, parse_query
from floodem.errors import DeviceError, OptionError
from floodem.network.device import Cuda, choose_device, choose_dtype, runs_on

REPOSITORY = Path(__file__).resolve().parents[1]
NO_CARD = Cuda(version="2.13.0+cpu", capabilities=(), architectures=())
ADA = Card(name="NVIDIA GeForce RTX 4090", capability=(8, 9), driver=580)
BUILT_FOR = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")


def nowhere() -> None:
    return None


@pytest.mark.parametrize(
    ("capability", "driver", "system", "machine", "build"),
    [
        ((9, 0), 580, "Linux", "x86_64", "cu130"),
        ((7, 5), 590, "Windows", "AMD64", "cu130"),
        ((12, 0), 580, "Linux", "aarch64", "cu130"),
        ((8, 6), 550, "Linux", "x86_64", "cu126"),
        ((7, 0), 580, "Linux", "x86_64", "cu126"),
        ((5, 0), 528, "Windows", "AMD64", "cu126"),
        ((9, 0), 550, "Linux", "aarch64", "cu126"),
        (None, 580, "Linux", "x86_64", "cu130"),
        (None, 535, "Linux", "x86_64", "cu126"),
        ((8, 6), None, "Linux", "x86_64", "cu130"),
    ],
)
def test_each_card_and_driver_gets_the_build_that_runs_on_it(
    capability, driver, system, machine, build
):
    card = Card(name="card", capability=capability, driver=driver)
    advice = advise(card, system=system, machine=machine)
    assert advice.arguments[:2] == ("install", f"torch=={cards.TORCH_VERSION}+{build}")
    assert advice.arguments[-1].endswith(f"/{build}")
    assert advice.sentence == "python -m pip " + " ".join(advice.arguments)


@pytest.mark.parametrize(
    ("capability", "driver", "system", "machine", "words"),
    [
        ((3, 5), 470, "Linux", "x86_64", "too old"),
        ((7, 0), 580, "Linux", "aarch64", "too old"),
        ((12, 0), 570, "Linux", "x86_64", "driver 580"),
        ((8, 6), 470, "Linux", "x86_64", "driver 525"),
        ((6, 1), 526, "Windows", "AMD64", "driver 528"),
        ((7, 0), 410, "Darwin", "x86_64", "no CUDA build"),
    ],
)
def test_where_no_build_fits_the_sentence_says_why(capability, driver, system, machine, words):
    card = Card(name="card", capability=capability, driver=driver)
    advice = advise(card, system=system, machine=machine)
    assert advice.arguments == ()
    assert words in advice.sentence


def test_the_advised_torch_is_the_pinned_one():
    constraints = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"torch=={cards.TORCH_VERSION}" in constraints


def test_nvidia_smi_lines_are_read_with_and_without_a_capability():
    text = "NVIDIA A100-SXM4, 80GB, 8.0, 550.54.14\nQuadro K600, 390.157\nnot a card\n"
    assert parse_query(text) == [
        Card(name="NVIDIA A100-SXM4, 80GB", capability=(8, 0), driver=550),
        Card(name="Quadro K600", capability=None, driver=390),
    ]


def test_no_nvidia_smi_and_no_driver_means_no_card(tmp_path):
    assert find_card(smi=nowhere, driver_folder=tmp_path / "none") is None


def test_the_newest_of_several_cards_counts(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = find_card(
        run=lambda command: "Old, 6.1, 580.1\nNew, 8.9, 580.1\n",
        smi=lambda: "nvidia-smi",
        driver_folder=tmp_path,
    )
    assert found == Card(name="New", capability=(8, 9), driver=580)


def test_an_old_nvidia_smi_is_asked_again_without_the_capability(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = find_card(
        run=lambda command: None if "compute_cap" in command[1] else "Quadro K600, 390.157\n",
        smi=lambda: "nvidia-smi",
        driver_folder=tmp_path,
    )
    assert found == Card(name="Quadro K600", capability=None, driver=390)


def test_a_card_without_nvidia_smi_is_found_through_its_driver(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:01:00.0" / "information").write_text("Model: \t NVIDIA L4\n")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Module  535.54.03  Tue\n")
    found = find_card(smi=nowhere, driver_folder=tmp_path)
    assert found == Card(name="NVIDIA L4", capability=None, driver=535)


def test_a_hidden_card_counts_as_none(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = find_card(
        run=lambda command: "New, 8.9, 580.1\n", smi=lambda: "nvidia-smi", driver_folder=tmp_path
    )
    assert found is None


def test_a_command_that_is_absent_or_fails_answers_nothing():
    assert cards.run_quietly(["no-such-program-anywhere"]) is None
    assert cards.run_quietly([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert cards.run_quietly([sys.executable, "-c", "print('yes')"]) == "yes\n"


def test_cards_needs_only_the_standard_library():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import floodem.cards; "
        "assert not {'numpy', 'torch', 'typer'} & set(sys.modules), sys.modules"
    )
    source = str(REPOSITORY / "src")
    subprocess.run([sys.executable, "-I", "-S", "-c", code, source], check=True)


def test_auto_is_the_cpu_where_there_is_no_card():
    chosen = choose_device("auto", cuda=NO_CARD, card=nowhere)
    assert chosen.device == torch.device("cpu")
    assert chosen.notice is None


def test_auto_mentions_a_card_that_lies_idle():
    chosen = choose_device("auto", cuda=NO_CARD, card=lambda: ADA)
    assert chosen.device == torch.device("cpu")
    assert "RTX 4090" in chosen.notice
    assert "2.13.0+cpu" in chosen.notice


def test_auto_is_the_first_card_that_torch_was_built_for():
    cuda = Cuda(version="x", capabilities=((6, 1), (8, 9)), architectures=BUILT_FOR)
    assert choose_device("auto", cuda=cuda, card=nowhere).device == torch.device("cuda", 1)
    assert choose_device("cuda", cuda=cuda, card=nowhere).device == torch.device("cuda", 1)


def test_a_card_asked_for_by_number_must_be_usable():
    cuda = Cuda(version="x", capabilities=((6, 1), (8, 9)), architectures=BUILT_FOR)
    assert choose_device("cuda:1", cuda=cuda, card=nowhere).device == torch.device("cuda", 1)
    for absent in ("cuda:0", "cuda:2"):
        with pytest.raises(DeviceError, match="choose cuda:1 or cpu"):
            choose_device(absent, cuda=cuda, card=nowhere)


def test_asking_for_cuda_without_a_card_is_refused():
    with pytest.raises(DeviceError, match="use --device cpu"):
        choose_device("cuda", cuda=NO_CARD, card=nowhere)


def test_asking_for_cuda_under_a_cpu_torch_names_the_build_or_the_obstacle():
    with pytest.raises(DeviceError, match="RTX 4090"):
        choose_device("cuda:0", cuda=NO_CARD, card=lambda: ADA)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "CPU", ""])
def test_unknown_device_names_are_refused_with_the_known_ones(name):
    with pytest.raises(OptionError, match="auto, cpu, cuda or cuda:N"):
        choose_device(name, cuda=NO_CARD, card=nowhere)


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (("sm_86",), (8, 6), True),
        (("sm_80",), (8, 6), True),
        (("sm_86",), (8, 0), False),
        (("sm_80",), (9, 0), False),
        (("compute_80",), (9, 0), True),
        (("compute_120",), (9, 0), False),
        (("sm_90a", "sm_120"), (12, 0), True),
        ((), (8, 0), False),
    ],
)
def test_built_code_runs_on_its_own_generation(architectures, capability, runs):
    assert runs_on(architectures, capability=capability) is runs


def test_auto_dtype_is_float32():
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("float32", torch.device("cpu")) is torch.float32


def test_a_dtype_that_the_device_computes_in_is_taken():
    taken = choose_dtype("bfloat16", torch.device("cpu"), computes=lambda dtype, device: True)
    assert taken is torch.bfloat16


def test_a_dtype_that_the_device_lacks_is_refused_with_those_it_has():
    with pytest.raises(DeviceError, match="bfloat16: choose float32 or float16"):
        choose_dtype(
            "bfloat16",
            torch.device("cpu"),
            computes=lambda dtype, device: dtype is torch.float16,
        )


def test_an_unknown_dtype_is_refused():
    with pytest.raises(OptionError, match="float64"):
        choose_dtype("float64", torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch sees no NVIDIA card")
def test_a_real_card_is_chosen_and_computes():
    chosen = choose_device("auto")
    assert chosen.device.type == "cuda"
    assert choose_dtype("float16", chosen.device) is torch.float16
