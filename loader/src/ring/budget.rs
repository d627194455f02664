//! How much memory may still be taken, before asking for it: going over a
//! control group's limit is answered by the kernel with a kill, not an error.

use std::fs;
use std::path::Path;

/// Bytes still free and the limit that decides, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) available: u64,
    pub(crate) limit: String,
}

/// The tightest of system memory and the control groups of this process;
/// `None` when the system tells neither.
pub(crate) fn budget() -> Option<Budget> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let system = read("/proc/meminfo").and_then(|text| system_budget(&text));
    let groups = read("/proc/self/cgroup")
        .map(|text| group_folders(&text))
        .unwrap_or_default();
    let groups = groups
        .iter()
        .filter_map(|folder| group_budget(Path::new(folder)));
    system
        .into_iter()
        .chain(groups)
        .min_by_key(|budget| budget.available)
}

fn system_budget(meminfo: &str) -> Option<Budget> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Budget {
        available: kib.saturating_mul(1024),
        limit: "MemAvailable of the system".to_owned(),
    })
}

/// Folders of this process's memory control groups, innermost first, then all parents.
fn group_folders(cgroup: &str) -> Vec<String> {
    let mut folders = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            names if names.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            folders.push(format!("{root}{path}"));
            match path.rfind('/') {
                Some(at) => path = &path[..at],
                None => break,
            }
        }
    }
    folders
}

/// Version 2 names its files `memory.max` and `memory.current`, version 1 otherwise.
fn group_budget(folder: &Path) -> Option<Budget> {
    let number = |name: &str| {
        fs::read_to_string(folder.join(name))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let (name, limit, used) = match number("memory.max") {
        Some(limit) => ("memory.max", limit, number("memory.current")?),
        None => (
            "memory.limit_in_bytes",
            number("memory.limit_in_bytes")?,
            number("memory.usage_in_bytes")?,
        ),
    };
    // Version 1 writes "no limit" as a huge number.
    if limit >= 1 << 60 {
        return None;
    }
    // Clean file pages count as used but are given up under pressure.
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let reclaimable = stat.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == "inactive_file" || key == "total_inactive_file")
            .then(|| value.trim().parse::<u64>().ok())?
    });
    let used = used.saturating_sub(reclaimable.unwrap_or(0));
    Some(Budget {
        available: limit.saturating_sub(used),
        limit: format!(
            "{name} = {limit} of control group {}, {used} used",
            folder.display()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_memory_is_read_in_bytes() {
        let text = "MemTotal: 10 kB\nMemFree: 1 kB\nMemAvailable:    1234 kB\n";
        assert_eq!(system_budget(text).unwrap().available, 1234 * 1024);
        assert_eq!(system_budget("MemTotal: 10 kB\n"), None);
    }

    #[test]
    fn both_control_group_versions_are_found_with_their_parents() {
        let folders = group_folders("0::/user.slice/job\n4:memory:/box\n3:cpuset:/x\n");
        assert_eq!(
            folders,
            [
                "/sys/fs/cgroup/user.slice/job",
                "/sys/fs/cgroup/user.slice",
                "/sys/fs/cgroup",
                "/sys/fs/cgroup/memory/box",
                "/sys/fs/cgroup/memory",
            ]
        );
        assert_eq!(group_folders("0::/\n"), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn a_group_limit_leaves_what_is_not_used_or_can_be_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(group_budget(folder.path()), None);
        write("memory.limit_in_bytes", "5000\n");
        write("memory.usage_in_bytes", "1000\n");
        assert_eq!(group_budget(folder.path()).unwrap().available, 4000);
        write("memory.max", "max\n");
        assert_eq!(group_budget(folder.path()).unwrap().available, 4000);
        write("memory.max", "10000\n");
        write("memory.current", "6000\n");
        write("memory.stat", "anon 1\ninactive_file 500\n");
        assert_eq!(group_budget(folder.path()).unwrap().available, 4500);
        write("memory.max", &u64::MAX.to_string());
        assert_eq!(group_budget(folder.path()), None);
    }
}
