//! The text of a note that says several things: a first line that tells what it is, then one of a
//! name and a value for each.

use std::fmt::Write as _;
use std::iter::Peekable;

/// Such a text, as it is written.
pub(super) struct Writer(String);

impl Writer {
    pub fn new(head: &str) -> Self {
        Self(format!("{head}\n"))
    }

    /// Adds a line. A value that comes from elsewhere makes no line of its own.
    pub fn line(&mut self, name: &str, value: &str) {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let value: String = value.chars().map(plain).collect();
        let _ = writeln!(self.0, "{name} {value}"); // a String takes everything
    }

    pub fn text(self) -> String {
        self.0
    }
}

/// Such a text, as it is read.
pub(super) struct Reader<'a>(Peekable<std::str::Lines<'a>>);

impl<'a> Reader<'a> {
    /// Behind the first line, if it is this one.
    pub fn new(text: &'a str, head: &str) -> Option<Self> {
        let mut lines = text.lines().peekable();
        (lines.next()? == head).then_some(Self(lines))
    }

    /// The value of the next line, if that has this name; else it is still the next.
    pub fn next(&mut self, name: &str) -> Option<String> {
        let value = |line: &&str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
        let found = self.0.peek().and_then(value);
        found.inspect(|_| _ = self.0.next())
    }

    /// Whether nothing is left.
    pub fn is_over(&mut self) -> bool {
        self.0.peek().is_none()
    }
}
