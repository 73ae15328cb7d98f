//! Text that a terminal shows, and does not obey.

use std::fmt::Write;

/// Text with escapes for its control characters, other than ends of lines.
pub fn printable(text: &str) -> String {
    let mut printed = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            let _ = write!(printed, "{}", c.escape_default());
        } else {
            printed.push(c);
        }
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_commanded() {
        assert_eq!(printable("World\x1b[2J\r\n\u{9b}1m–×"), "World\\u{1b}[2J\\r\n\\u{9b}1m–×");
    }
}
