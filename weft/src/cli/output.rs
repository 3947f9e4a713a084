//! Where text goes, and whether it may be coloured.

use std::io::{self, IsTerminal, Write};

use rustix::termios::tcgetwinsize;

use super::table::View;

/// Standard output or standard error.
#[derive(Clone, Copy)]
pub(super) struct Output {
    error: bool,
    colours: bool,
}

impl Output {
    pub(super) fn stdout() -> Self {
        Self {
            error: false,
            colours: may_colour() && io::stdout().is_terminal(),
        }
    }

    pub(super) fn stderr() -> Self {
        Self {
            error: true,
            colours: may_colour() && io::stderr().is_terminal(),
        }
    }

    /// How a view is drawn here: as wide as the terminal, where it is one.
    pub(super) fn view(self, wide: bool) -> View {
        let size = match self.error {
            true => tcgetwinsize(io::stderr()),
            false => tcgetwinsize(io::stdout()),
        };
        // A terminal that does not know its size says 0.
        let width = size.ok().map(|size| usize::from(size.ws_col));
        View {
            wide,
            colours: self.colours,
            width: width.filter(|width| *width > 0),
        }
    }

    /// It is a terminal that shows colours, and the user wants them.
    pub(super) fn colours(self) -> bool {
        self.colours
    }

    /// Writes all of `text`. A reader that has seen enough (`| head`) is no error.
    pub(super) fn write(self, text: &str) -> anyhow::Result<()> {
        let result = match self.error {
            true => io::stderr().lock().write_all(text.as_bytes()),
            false => {
                let mut stdout = io::stdout().lock();
                stdout
                    .write_all(text.as_bytes())
                    .and_then(|()| stdout.flush())
            }
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }
}

/// <https://no-color.org>, and terminals that cannot.
fn may_colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
