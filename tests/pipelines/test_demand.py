"""What stages ask of machines, and what they lack, by hand."""

from visionprefer.settings import Workers
from visionprefer_pipelines.demand import Machine, Placed, lacking, place, room, wanted


def machine(**has: float) -> Machine:
    """One of which nothing is reserved."""
    return Machine("10.0.0.1", has, has)


def test_what_is_asked_is_what_is_not_nothing() -> None:
    assert wanted(Workers(num_cpus=1 / 3)) == {"CPU": 0.3333}
    assert wanted(Workers(num_gpus=0.5, resources={"spot": 2})) == {"CPU": 1, "GPU": 0.5, "spot": 2}


def test_a_machine_holds_as_many_as_fit() -> None:
    assert room({"CPU": 2, "GPU": 0.5}, {"CPU": 8, "GPU": 1}) == 2
    assert room({"CPU": 0.1}, {"CPU": 0.3}) == 3  # though 0.3 / 0.1 is less than 3
    assert room({"CPU": 1, "GPU": 1}, {"CPU": 8}) == 0


def test_what_is_lacking_is_named_with_what_is_free_of_it() -> None:
    busy = Machine("10.0.0.2", {"CPU": 4, "GPU": 2}, {"CPU": 4, "GPU": 0})
    asked = {"CPU": 1, "GPU": 1}
    assert lacking(asked, []) == "1 CPU (0 of 0 free) and 1 GPU (0 of 0 free)"
    assert lacking(asked, [machine(CPU=8)]) == "1 GPU (0 of 0 free)"
    assert lacking(asked, [machine(CPU=8), busy]) == "1 GPU (0 of 2 free)"
    assert lacking(asked, [busy, machine(CPU=1, GPU=1)]) == ""


def test_what_is_there_but_not_together_is_told_so() -> None:
    apart = [machine(CPU=8), machine(CPU=0, GPU=1)]
    assert lacking({"CPU": 1, "GPU": 1}, apart) == "1 CPU (8 of 8 free) and 1 GPU (1 of 1 free) on one machine"


def test_stages_find_room_and_the_machines_are_left_as_they_were() -> None:
    """The images stay off the machine with the GPU until the others are full, and the judge is placed before them."""
    machines = [machine(CPU=2, GPU=1), machine(CPU=2)]
    stages = {"images.workers": Workers(actors=(3, 9)), "judge.workers": Workers(actors=2, num_gpus=0.5)}
    assert place(stages, machines) == {
        "images.workers": Placed(2, "1 CPU (0 of 4 free)"),
        "judge.workers": Placed(2, ""),
    }
    assert place({"judge.workers": Workers(actors=2, num_gpus=0.6)}, machines) == {
        "judge.workers": Placed(1, "0.6 GPU (0.4 of 1 free)")
    }
    assert machines == [machine(CPU=2, GPU=1), machine(CPU=2)]
