//! The output of a program, such as one that asks a key management service.

use std::{
    io::{self, Read as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use super::source::MAX_BYTES;
use crate::{environment, telemetry::redact};

/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// How much of what the program says of a failure is told.
const TOLD: u64 = 200;

/// Runs a program without a shell, and gives what it writes to its standard output.
///
/// It is not given what this process reads, nor these variables nor those of catalog-sync, in which secrets may be. Its standard
/// error is told only when it fails.
pub(super) fn output_of(words: &[String], withheld: &[&str]) -> Result<Zeroizing<Vec<u8>>, String> {
    let (program, arguments) = words.split_first().ok_or("it names no program")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    for name in environment::own_names() {
        command.env_remove(name);
    }
    for name in withheld {
        command.env_remove(name);
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("it cannot be started ({error})"))?;
    let result = wait(&mut child, PATIENCE);
    if result.is_err() {
        // With what it started. It may have ended by itself; then there is nothing to end.
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        group.and_then(|group| kill_process_group(group, Signal::KILL).ok());
        drop(child.wait());
    }
    result
}

fn wait(child: &mut Child, patience: Duration) -> Result<Zeroizing<Vec<u8>>, String> {
    let until = Instant::now() + patience;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("its output cannot be read".to_owned());
    };
    let (send, output) = mpsc::channel();
    // Threads of their own: a grandchild that keeps the pipes open must not keep this one.
    thread::spawn(move || {
        // Never grown, so that no copy is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
        let read = (&mut stdout)
            .take(MAX_BYTES as u64 + 1)
            .read_to_end(&mut bytes);
        // Nobody listens any more when time is up.
        drop(send.send(read.map(|_| bytes)));
    });
    let (send, said) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = (&mut stderr).take(TOLD).read_to_end(&mut bytes);
        // The rest is read too, and not kept: a pipe that nobody reads would stop or end the program.
        let read = read.and_then(|_| io::copy(&mut stderr, &mut io::sink()));
        drop(send.send(read.map(|_| bytes)));
    });

    let in_time = || format!("it was not done within {} s", patience.as_secs());
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    let bytes = output
        .recv_timeout(left(until))
        .map_err(|_| in_time())?
        .map_err(|error| format!("its output cannot be read ({error})"))?;
    if bytes.len() > MAX_BYTES {
        return Err("it wrote more than 64 KiB".to_owned());
    }
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => thread::sleep(BETWEEN_LOOKS),
            Ok(None) => return Err(in_time()),
            Err(error) => return Err(format!("it cannot be waited for ({error})")),
        }
    };
    if status.success() {
        return Ok(bytes);
    }
    let said = said.recv_timeout(left(until).min(BETWEEN_LOOKS * 100));
    Err(failure(status, said.ok().and_then(Result::ok).as_deref()))
}

fn failure(status: ExitStatus, said: Option<&[u8]>) -> String {
    let said = String::from_utf8_lossy(said.unwrap_or_default());
    // A program that traces its steps says what it is to print.
    let said: String = without_keys(&redact(&said))
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match said.trim() {
        "" => format!("it failed ({status})"),
        said => format!("it failed ({status}): {said}"),
    }
}

/// The text without what may be a key of 32 bytes, in base64 or hexadecimal digits.
fn without_keys(text: &str) -> String {
    const DIGITS: usize = 42;
    let is_digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_');
    let mut shown = String::new();
    for part in text.split_inclusive(|c| !is_digit(c)) {
        let rest = part.trim_start_matches(is_digit);
        if part.len() - rest.len() > DIGITS {
            shown.push_str("[redacted]");
            shown.push_str(rest);
        } else {
            shown.push_str(part);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[&str]) -> Vec<String> {
        text.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_a_program_writes_is_taken() {
        let output = output_of(&words(&["echo", "a b", "c"]), &[]).unwrap();
        assert_eq!(&output[..], b"a b c\n");
    }

    #[test]
    fn how_a_program_failed_is_told() {
        for (program, told) in [
            (&["/nonexistent/program"][..], "it cannot be started"),
            (&["false"], "it failed (exit status: 1)"),
            (
                &["sh", "-c", "echo no access >&2; exit 3"],
                "exit status: 3): no access",
            ),
            (&["head", "-c", "70000", "/dev/zero"], "more than 64 KiB"),
        ] {
            let why = output_of(&words(program), &[]).unwrap_err();
            assert!(why.contains(told), "{why}");
        }
    }

    #[test]
    fn a_program_may_say_much_beside_what_it_prints() {
        let script = "head -c 300000 /dev/zero | tr '\\0' x >&2; echo done";
        let output = output_of(&words(&["sh", "-c", script]), &[]).unwrap();
        assert_eq!(&output[..], b"done\n");
    }

    #[test]
    fn a_master_key_that_a_program_traces_is_not_told() {
        for key in [
            "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        ] {
            let script = format!("set -x; KEY={key}; false");
            let why = output_of(&words(&["sh", "-c", &script]), &[]).unwrap_err();
            assert!(why.contains("+ KEY="), "{why}");
            assert!(why.contains("[redacted]"), "{why}");
            assert!(!why.contains("AAECAw") && !why.contains("0b0c"), "{why}");
        }
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended() {
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let why = wait(&mut child, Duration::from_millis(50)).unwrap_err();
        assert!(why.contains("was not done within"), "{why}");
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
