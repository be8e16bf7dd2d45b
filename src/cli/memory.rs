//! Keeps what this process has in memory out of core dumps and out of other processes.

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Turns core dumps off, before anything secret is read.
///
/// The limit alone is not enough where the kernel hands the dump to a program: that gets it whatever the limit. So the process
/// says besides that it is not to be dumped, which also keeps other processes of the same user from reading its memory.
pub(super) fn keep() -> anyhow::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).context("core dumps cannot be turned off")?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context("core dumps cannot be turned off")?;
    Ok(())
}
