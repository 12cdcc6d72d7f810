//! A few lines of the terminal that are drawn again and again in place.

use std::io::{self, Write};

use crossterm::cursor::{Hide, MoveToPreviousLine, Show};
use crossterm::queue;
use crossterm::terminal::{Clear, ClearType};

/// Columns and rows of a terminal that doesn't tell.
pub(crate) const FALLBACK_SIZE: (u16, u16) = (120, 40);

/// Shows the cursor again when it goes.
pub(crate) struct Screen<W: Write> {
    out: W,
    /// Lines of the last drawing, above the cursor.
    drawn: u16,
}

impl<W: Write> Screen<W> {
    pub(crate) fn new(mut out: W) -> io::Result<Self> {
        queue!(out, Hide)?;
        out.flush()?;
        Ok(Self { out, drawn: 0 })
    }

    /// Draws over the last drawing, cut to the terminal's columns and rows, so that no line wraps or scrolls away.
    pub(crate) fn draw(&mut self, text: &str, (columns, rows): (u16, u16)) -> io::Result<()> {
        if self.drawn > 0 {
            queue!(self.out, MoveToPreviousLine(self.drawn))?;
        }
        queue!(self.out, Clear(ClearType::FromCursorDown))?;
        self.drawn = 0;
        for line in text.lines().take(usize::from(rows.saturating_sub(1))) {
            let line: String = line.chars().take(usize::from(columns)).collect();
            write!(self.out, "{line}\r\n")?;
            self.drawn += 1;
        }
        self.out.flush()
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        // Nothing is left to be done for a terminal that is gone.
        let _ = queue!(self.out, Show);
        let _ = self.out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_is_cut_and_replaces_the_one_before() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out).expect("memory takes it");
        screen
            .draw("first\nsecond\nthird", (3, 3))
            .expect("memory takes it");
        screen.draw("x", (3, 3)).expect("memory takes it");
        drop(screen);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "\u{1b}[?25l\u{1b}[Jfir\r\nsec\r\n\u{1b}[2F\u{1b}[Jx\r\n\u{1b}[?25h"
        );
    }
}
