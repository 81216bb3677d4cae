"""Cores and memory are those of the control group, of both versions, and never more than the machine has."""

from __future__ import annotations

import os

import pytest

from bossa.host import resources

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 CPUs and 16 GiB free, whose control groups a test writes."""
    monkeypatch.setattr(resources, "PROC", tmp_path / "proc")
    monkeypatch.setattr(resources, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)), raising=False)

    def write(files):
        for name, text in {"proc/meminfo": f"MemAvailable: {16 * GIB // 1024} kB\n", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_without_limits_all_of_the_machine_is_there(machine):
    machine({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "max 100000\n", "cgroup/memory.max": "max\n"})
    assert (resources.cores(), resources.free_memory()) == (8, 16 * GIB)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [(50_000, 1), (100_000, 1), (120_000, 1), (125_000, 2), (200_000, 2), (210_000, 2), (3_200_000, 8)],
)
def test_a_quota_of_version_2_bounds_the_threads(machine, quota, cores):
    machine({"proc/self/cgroup": "0::/pod/box\n", "cgroup/pod/box/cpu.max": f"{quota} 100000\n"})
    assert resources.cores() == cores


def test_a_quota_of_version_1_bounds_the_threads(machine):
    machine(
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/box\n2:memory:/box\n",
            "cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "300000\n",
            "cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
            "cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "cgroup/memory/box/memory.limit_in_bytes": f"{2 * GIB}\n",
            "cgroup/memory/box/memory.usage_in_bytes": f"{GIB}\n",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
    )
    assert (resources.cores(), resources.free_memory()) == (3, GIB)


def test_the_tightest_of_nested_groups_holds(machine):
    machine(
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "cgroup/pod/cpu.max": "200000 100000\n",
            "cgroup/pod/memory.max": f"{GIB}\n",
            "cgroup/pod/memory.current": f"{GIB // 2}\n",
            "cgroup/pod/box/cpu.max": "max 100000\n",
            "cgroup/pod/box/memory.max": f"{4 * GIB}\n",
            "cgroup/pod/box/memory.current": f"{GIB // 2}\n",
        }
    )
    assert (resources.cores(), resources.free_memory()) == (2, GIB // 2)


def test_a_path_of_the_host_inside_a_container_stands_for_its_root(machine):
    machine(
        {
            "proc/self/cgroup": "0::/system.slice/docker-1234.scope\n",
            "cgroup/cpu.max": "100000 100000\n",
            "cgroup/memory.max": f"{GIB}\n",
            "cgroup/memory.current": "0\n",
        }
    )
    assert (resources.cores(), resources.free_memory()) == (1, GIB)


def test_files_that_the_system_can_drop_count_as_free(machine):
    machine(
        {
            "proc/self/cgroup": "0::/\n",
            "cgroup/memory.max": f"{GIB}\n",
            "cgroup/memory.current": f"{GIB}\n",
            "cgroup/memory.stat": f"anon 5\nactive_file {GIB // 8}\ninactive_file {GIB // 4}\n",
        }
    )
    assert resources.free_memory() == GIB // 4 + GIB // 8


def test_where_both_versions_are_in_use_the_second_has_a_folder_of_its_own(machine):
    machine(
        {
            "proc/self/cgroup": "3:cpuset:/\n2:cpu:/box\n1:memory:/box\n0::/box\n",
            "cgroup/cpu/box/cpu.cfs_quota_us": "400000\n",
            "cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            "cgroup/unified/box/cpu.max": "200000 100000\n",
            "cgroup/unified/box/memory.max": "max\n",
            "cgroup/unified/box/memory.high": f"{GIB}\n",
            "cgroup/unified/box/memory.current": f"{GIB // 2}\n",
            "cgroup/memory/box/memory.limit_in_bytes": f"{4 * GIB}\n",
            "cgroup/memory/box/memory.usage_in_bytes": f"{2 * GIB}\n",
            "cgroup/memory/box/memory.stat": f"active_file 5\ntotal_active_file {GIB}\ntotal_inactive_file 0\n",
        }
    )
    assert (resources.cores(), resources.free_memory()) == (2, GIB // 2)


def test_the_address_space_that_is_left_is_a_limit_too(machine, monkeypatch):
    import resource

    machine({"proc/self/statm": f"{GIB // resource.getpagesize()} 5 5 5 0 5 0\n"})
    monkeypatch.setattr(resource, "getrlimit", lambda which: (3 * GIB, -1) if which == resource.RLIMIT_AS else (0, 0))
    assert resources.free_memory() == 2 * GIB


def test_where_nothing_can_be_read_there_is_still_an_answer(machine, tmp_path):
    assert resources.cores() == 8
    assert resources.free_memory() > 0
