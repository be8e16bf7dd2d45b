//! What a process has cost so far, as Linux counts it.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// How many clock ticks a second has in `/proc`: a constant of Linux's interface, whatever the kernel's own tick.
const TICKS: u64 = 100;

/// The processor time of a process, in it and for it in the kernel, its threads that ended included.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let [user, system, ..] = times(pid)?;
    Ok(of_ticks(user + system))
}

/// The same for a server and all its children, those that ended included.
pub(crate) fn cpu_of_family(pid: u32) -> anyhow::Result<Duration> {
    let mut ticks: u64 = times(pid)?.iter().sum();
    for child in children(pid)? {
        // One that ended meanwhile is counted with its parent the next time.
        ticks += times(child).map_or(0, |[user, system, ..]| user + system);
    }
    Ok(of_ticks(ticks))
}

/// The most memory that a process ever had, in bytes.
pub(crate) fn peak_memory(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("/proc has no VmHWM")?;
    Ok(kilobytes.parse::<u64>()? << 10)
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// Own user and system time, and those of children that were waited for, in ticks.
fn times(pid: u32) -> anyhow::Result<[u64; 4]> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    // The name stands in brackets and may hold anything.
    let (_, rest) = stat.rsplit_once(')').context("/proc has no name")?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || -> anyhow::Result<u64> {
        Ok(fields.next().context("/proc has too few fields")?.parse()?)
    };
    Ok([next()?, next()?, next()?, next()?])
}

fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let all = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(all
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?)
}
