//! The terminal while a view has all of it: put back as it was, however the view ends.

use std::io::{self, Write};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// Alternate screen, no cursor, no line wrap.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// A terminal that shows one view. Keys come at once and without echo; Ctrl+C stays a signal.
pub struct View {
    before: Termios,
}

impl View {
    pub fn enter() -> io::Result<View> {
        let before = tcgetattr(io::stdin())?;
        let mut keys = before.clone();
        keys.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &keys)?;
        let view = View { before };
        write(ENTER)?;
        Ok(view)
    }

    /// Shows these lines from the top, in one write, so that nothing flickers.
    pub fn show(&self, lines: &[String]) -> io::Result<()> {
        let height = terminal_size::terminal_size().map_or(24, |(_, height)| usize::from(height.0));
        let shown = if lines.len() > height { &lines[..height.saturating_sub(1)] } else { lines };
        let mut text = String::from("\x1b[H");
        for (at, line) in shown.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\r\n" };
            text += &format!("{separator}{line}\x1b[K");
        }
        if shown.len() < lines.len() {
            text += &format!("\r\n... and {} lines more\x1b[K", lines.len() - shown.len());
        }
        write(&(text + "\x1b[J"))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
