"""Memory of many processes, of which few are read at a time."""

from muxsim.processes import footprint


def test_one_sample_reads_a_bounded_number_of_processes_and_takes_the_others_for_average(monkeypatch):
    read = []

    def size(pid):
        read.append(pid)
        return 10

    class Stat:
        started = 1

    monkeypatch.setattr(footprint, "_proportional_size", size)
    monkeypatch.setattr(footprint, "families", lambda roots: dict.fromkeys(range(500), Stat))
    total = footprint.Footprint()
    assert total.read() == 5000
    assert len(read) == 200
    total.read()
    total.read()
    assert set(read) == set(range(500))
