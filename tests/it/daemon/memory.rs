//! What the memory of a daemon holds of its keys, and that none of it gets out: no core dump, no other process.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind,
    os::unix::{fs::FileExt as _, process::ExitStatusExt as _},
    process::Stdio,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tokio::process::Command;

use super::fixture::{Daemon, house, teams};
use crate::house::{Backend, House};

/// The 32 bytes that are secret in the private key of a simulated team.
fn scalar(house: &House, team: usize) -> Vec<u8> {
    const BEFORE: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
    let pem = house.simulator.state().teams[team].keys[0]
        .private_key
        .clone();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(base64).unwrap();
    let at = der
        .windows(BEFORE.len())
        .position(|window| window == BEFORE)
        .unwrap();
    der[at + BEFORE.len()..][..32].to_vec()
}

fn master_key(house: &House) -> Vec<u8> {
    let text = fs::read_to_string(house.path("master.key")).unwrap();
    let line = text.lines().find(|line| !line.starts_with('#')).unwrap();
    BASE64_STANDARD
        .decode(line.split_once(':').unwrap().1)
        .unwrap()
}

/// Where a process's memory holds any of these, which all have 16 bytes; nothing when it may not be read.
fn found_in(process: Pid, wanted: &[Vec<u8>]) -> Option<Vec<String>> {
    const PART: usize = 1 << 20;
    let memory = match File::open(format!("/proc/{}/mem", process.as_raw_pid())) {
        Ok(memory) => memory,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
        Err(error) => panic!("{error}"),
    };
    let first: BTreeSet<u8> = wanted.iter().map(|wanted| wanted[0]).collect();
    let mut is_first = [false; 256];
    for byte in first {
        is_first[usize::from(byte)] = true;
    }
    let maps = fs::read_to_string(format!("/proc/{}/maps", process.as_raw_pid())).unwrap();
    let mut found = Vec::new();
    let mut part = vec![0; PART + 16];
    for map in maps.lines() {
        let mut fields = map.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut at = start;
        while at < end {
            // What was unmapped meanwhile cannot be read.
            let length = memory.read_at(&mut part, at).unwrap_or(0);
            let part = &part[..length.min(usize::try_from(end - at).unwrap())];
            for (index, &byte) in part.iter().enumerate() {
                let is_it = |wanted: &Vec<u8>| part[index..].starts_with(wanted);
                if is_first[usize::from(byte)] && wanted.iter().any(is_it) {
                    found.push(format!("{:x} of {map}", at + index as u64));
                }
            }
            at += PART as u64;
        }
    }
    Some(found)
}

/// The halves of a number, as it is written and as a processor holds it.
fn halves(number: &[u8]) -> Vec<Vec<u8>> {
    let reversed: Vec<u8> = number.iter().rev().copied().collect();
    [number, &reversed]
        .iter()
        .flat_map(|number| number.chunks(16).map(<[u8]>::to_vec))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_nowhere_in_memory_once_its_token_was_signed() {
    let house = house(teams(2), Backend::Sqlite).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    for project in ["p1", "p2"] {
        house.run(&["resync", project, "--wait"]).await.expect(0);
        daemon.event_of("sync.finished", project).await;
    }
    let process = daemon.pid();
    if let Some(found) = found_in(process, &halves(&master_key(&house))) {
        assert!(!found.is_empty(), "what is there is found");
        for team in [0, 1] {
            let found = found_in(process, &halves(&scalar(&house, team))).unwrap();
            assert_eq!(found, [""; 0], "the key of team {team}");
        }
    }
    daemon.stop().await;
}

/// A daemon that was started where core dumps are wanted, as large as they may be.
fn dumping(house: &House) -> Daemon {
    let daemon = house.command(&["run"]);
    let daemon = daemon.as_std();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -S -c \"$(ulimit -H -c)\"; exec \"$0\" run"])
        .arg(daemon.get_program())
        .current_dir(house.path(""))
        .env_clear()
        .envs(
            daemon
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Daemon::of(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_crashes_leaves_no_core_dump() {
    for (signal, may_dump) in [
        (Signal::ABORT, false),
        (Signal::ILL, false),
        // Whoever lifts the limit from outside gets none all the same.
        (Signal::ABORT, true),
    ] {
        let house = House::new(teams(1), Backend::Sqlite).await;
        let mut daemon = dumping(&house);
        daemon.event("daemon.started").await;
        let process = daemon.pid();
        let limits = format!("/proc/{}/limits", process.as_raw_pid());
        let limits = fs::read_to_string(limits).unwrap();
        let core: Vec<&str> = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap()
            .split_whitespace()
            .skip(4)
            .collect();
        assert_eq!(core[..2], ["0", "0"], "{limits}");
        if may_dump {
            let unlimited = Rlimit {
                current: None,
                maximum: None,
            };
            // Only root may.
            prlimit(Some(process), Resource::Core, unlimited).ok();
        }
        daemon.signal(signal);
        let (status, _) = daemon.exit().await;
        assert_eq!(status.signal(), Some(signal.as_raw()));
        assert!(!status.core_dumped(), "{signal:?}");
        let cores: Vec<_> = fs::read_dir(house.path(""))
            .unwrap()
            .map(|file| file.unwrap().file_name())
            .filter(|name| name.to_string_lossy().starts_with("core"))
            .collect();
        assert!(cores.is_empty(), "{cores:?}");
    }
}
