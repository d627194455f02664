//! A terminal's screen for as long as something is drawn on it, and the terminal as it was afterwards, whatever happens.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

/// Another screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// The screen and cursor from before.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The terminal's settings from before, while they are changed.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// What was typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Key {
    /// q, Escape or Ctrl-C.
    Quit,
    Other,
}

/// The screen, taken over. Dropping it gives it back; so does a panic.
pub(crate) struct Screen(());

impl Screen {
    /// Takes the terminal of standard input and output over. Signals that end the process must be turned into an orderly
    /// end: a killed process leaves the terminal as it is.
    pub(crate) fn open() -> io::Result<Screen> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        // Letters come at once and are not shown. Ctrl-C is a letter, too, and Ctrl-Z does nothing: a stopped process would
        // leave the terminal like this.
        raw.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            usual(panic);
        }));
        let screen = Screen(());
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        put(ENTER)?;
        Ok(screen)
    }

    /// Columns and lines.
    pub(crate) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => (80, 24),
        }
    }

    /// Replaces what is shown by the first `height` lines of `text`, without a moment of an empty screen.
    pub(crate) fn draw(&mut self, text: &str, height: usize) -> io::Result<()> {
        let mut frame = String::from("\x1b[H");
        let lines: Vec<&str> = text.lines().take(height).collect();
        frame.push_str(&lines.join("\x1b[K\r\n"));
        frame.push_str("\x1b[K\x1b[J");
        put(&frame)
    }

    /// What is typed within `timeout`.
    pub(crate) fn key(&mut self, timeout: Duration) -> io::Result<Option<Key>> {
        let stdin = io::stdin();
        let mut watched = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut watched, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => (),
            Err(error) => return Err(error.into()),
        }
        let mut typed = [0; 64];
        match rustix::io::read(&stdin, &mut typed) {
            // The terminal is gone.
            Ok(0) => Ok(Some(Key::Quit)),
            Ok(length) => Ok(Some(key_of(&typed[..length]))),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(None),
            Err(rustix::io::Errno::IO) => Ok(Some(Key::Quit)),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// A lone Escape ends; one that begins a longer sequence is an arrow key or the like.
fn key_of(typed: &[u8]) -> Key {
    match typed {
        [b'q' | b'Q' | 0x03 | 0x04, ..] | [0x1b] => Key::Quit,
        _ => Key::Other,
    }
}

/// Gives the terminal back, once.
fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        let _ = put(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_escape_and_control_c_end() {
        for typed in [&b"q"[..], b"Q", b"\x03", b"\x1b", b"qq"] {
            assert_eq!(key_of(typed), Key::Quit);
        }
        for typed in [&b"x"[..], b"\x1b[A", b" "] {
            assert_eq!(key_of(typed), Key::Other);
        }
    }
}
