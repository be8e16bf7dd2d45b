//! Shows something again and again: redrawn on a terminal, one after the other elsewhere.
//!
//! What must hold: however it ends, the terminal is as it was.

use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    time::Duration,
};

use anstream::adapter::strip_str;
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use super::super::output::Output;
use crate::clock;

/// Another screen, and no cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Ends when it is told to: by ctrl-c, a signal, the key `q`, or when nobody reads any more.
pub(super) async fn watch(
    every: Duration,
    output: &Output,
    show: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let screen = if output.can_redraw() {
        Some(Screen::enter()?)
    } else {
        None
    };
    let mut keys = Keys::of(screen.as_ref())?;
    let watching = async {
        loop {
            output.begin_frame();
            let shown = show().await;
            let frame = output.end_frame();
            shown?;
            match &screen {
                Some(_) => draw(&frame, output)?,
                None => output.frame(&frame)?,
            }
            if output.is_closed() {
                return Ok(());
            }
            tokio::time::sleep(every).await;
            if screen.is_none() {
                let now = clock::now().format("%Y-%m-%d %H:%M:%S UTC");
                output.say(format_args!("--- {now}"))?;
            }
        }
    };
    tokio::select! {
        ended = watching => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        () = keys.quit() => Ok(()),
    }
}

/// Draws over what was there, line by line, so that nothing flickers.
fn draw(frame: &str, output: &Output) -> io::Result<()> {
    let size = termios::tcgetwinsize(io::stdout())?;
    let fitting = fit(frame, size.ws_row.into(), size.ws_col.into());
    let text = if output.has_colour() {
        fitting
    } else {
        strip_str(&fitting).to_string()
    };
    let mut drawn = "\x1b[H".to_owned();
    for line in text.split_inclusive('\n') {
        drawn.push_str(line.trim_end_matches('\n'));
        drawn.push_str("\x1b[K");
        drawn.push_str(if line.ends_with('\n') { "\r\n" } else { "" });
    }
    drawn.push_str("\x1b[J");
    let mut stdout = io::stdout().lock();
    stdout.write_all(drawn.as_bytes())?;
    stdout.flush()
}

/// As many lines as there is room for, and how many there are beside them; long lines take several rows. A size of 0 is none that
/// is known.
fn fit(frame: &str, rows: usize, columns: usize) -> String {
    let lines: Vec<&str> = frame.trim_end_matches('\n').split('\n').collect();
    let taken = |line: &str| {
        let width = strip_str(line).to_string().chars().count();
        width.div_ceil(columns.max(1)).max(1)
    };
    if rows == 0 || columns == 0 || lines.iter().map(|line| taken(line)).sum::<usize>() <= rows {
        return lines.join("\n");
    }
    let mut room = rows - 1;
    let shown = lines
        .iter()
        .take_while(|line| {
            let fits = room.checked_sub(taken(line));
            room = fits.unwrap_or(0);
            fits.is_some()
        })
        .count();
    let more = lines.len() - shown;
    let lines = lines.iter().take(shown).map(|line| format!("{line}\n"));
    format!("{}.. and {more} more lines", lines.collect::<String>())
}

/// The terminal while it is drawn upon.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(ENTER.as_bytes())?;
        stdout.flush()?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut stdout = io::stdout().lock();
        // A terminal that is gone has nothing to be restored.
        stdout
            .write_all(LEAVE.as_bytes())
            .and_then(|()| stdout.flush())
            .ok();
    }
}

/// The keyboard, read key by key, if there is one.
struct Keys {
    before: Option<Termios>,
    quit: oneshot::Receiver<()>,
    /// Without a keyboard, what keeps the receiver waiting.
    _never: Option<oneshot::Sender<()>>,
}

impl Keys {
    fn of(screen: Option<&Screen>) -> io::Result<Self> {
        let (quit, wanted) = oneshot::channel();
        let stdin = io::stdin();
        if screen.is_none() || !stdin.is_terminal() {
            return Ok(Self {
                before: None,
                quit: wanted,
                _never: Some(quit),
            });
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut by_key = before.clone();
        by_key.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        termios::tcsetattr(&stdin, OptionalActions::Now, &by_key)?;
        let keys = Self {
            before: Some(before),
            quit: wanted,
            _never: None,
        };
        // Not one of the runtime's threads: it waits for those at the end, and this one for a key.
        std::thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || {
                let mut keys = stdin.lock().bytes();
                keys.any(|key| matches!(key, Ok(b'q' | b'Q') | Err(_)));
                quit.send(()).ok(); // It may be over already.
            })?;
        Ok(keys)
    }

    /// Waits until somebody wants to end it; for ever, without a keyboard.
    async fn quit(&mut self) {
        (&mut self.quit).await.ok(); // A keyboard that is gone ends it too.
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // As above.
            termios::tcsetattr(io::stdin(), OptionalActions::Now, before).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fit;

    #[test]
    fn a_frame_is_cut_to_the_rows_that_there_are() {
        assert_eq!(fit("a\nb\nc\n", 3, 10), "a\nb\nc");
        assert_eq!(fit("a\nb\nc\nd\n", 3, 10), "a\nb\n.. and 2 more lines");
        assert_eq!(fit("a\nb\nc\nd\n", 0, 0), "a\nb\nc\nd", "no size is known");
    }

    #[test]
    fn a_long_line_takes_several_rows_and_colours_take_no_room() {
        let long = "0123456789ab";
        assert_eq!(
            fit(&format!("{long}\nb\nc"), 3, 10),
            format!("{long}\n.. and 2 more lines")
        );
        let coloured = "\x1b[1m0123456789\x1b[0m";
        assert_eq!(
            fit(&format!("{coloured}\nb"), 2, 10),
            format!("{coloured}\nb")
        );
    }
}
