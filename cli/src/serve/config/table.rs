//! A table of the file while it is read: typed values out, complaints with their places in.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::Complaint;

/// The longest piece of the file that a complaint repeats, in characters.
const SHOWN_MOST: usize = 40;
/// The longest text that is taken, in bytes: the longest path.
const TEXT_MOST: usize = 4096;

/// The file's text, and what was found wrong with it.
pub struct Source<'a> {
    text: &'a str,
    file: &'a str,
    complaints: RefCell<Vec<(Complaint, About)>>,
}

/// What a complaint is about, as far as that makes another one needless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// A key that is not known and was probably meant to be this one.
    Slip(&'static str),
    /// This key is not there.
    Missing(&'static str),
    Other,
}

impl<'a> Source<'a> {
    pub fn new(text: &'a str, file: &'a str) -> Source<'a> {
        Source { text, file, complaints: RefCell::default() }
    }

    pub fn complain(&self, at: usize, table: &str, message: &str) {
        self.complain_about(About::Other, at, table, message);
    }

    fn complain_about(&self, about: About, at: usize, table: &str, message: &str) {
        let (line, column) = self.position(at);
        let (file, table, message) = (self.file.to_owned(), table.to_owned(), message.to_owned());
        self.complaints.borrow_mut().push((Complaint { file, line, column, table, message }, about));
    }

    /// All complaints in the order of their places. What is missing because it is misspelt, or because the file could
    /// not be read whole, is not worth a second one; nor is what stands in a line that could not be read.
    pub fn complaints(self, unreadable: usize) -> Vec<Complaint> {
        let all = self.complaints.into_inner();
        let broken: Vec<_> = all[..unreadable].iter().map(|(complaint, _)| complaint.line).collect();
        let is_slip = |table: &str, key| {
            all.iter().any(|(complaint, about)| complaint.table == table && *about == About::Slip(key))
        };
        let is_needed = |(complaint, about): &(Complaint, About)| match about {
            About::Missing(key) => broken.is_empty() && !is_slip(&complaint.table, *key),
            _ => !broken.contains(&complaint.line),
        };
        let (unread, read) = all.split_at(unreadable);
        let needed = unread.iter().chain(read.iter().filter(|found| is_needed(found)));
        let mut complaints: Vec<_> = needed.map(|(complaint, _)| complaint.clone()).collect();
        complaints.sort_by_key(|complaint| (complaint.line, complaint.column));
        complaints.dedup();
        complaints
    }

    /// Line and column, both from 1, the column in characters.
    pub fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count();
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        // Every character has one byte that is no continuation.
        let column = before[begin..].iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        (line + 1, column + 1)
    }
}

/// A range of whole numbers, and what they count.
pub struct Number {
    range: RangeInclusive<u64>,
    unit: &'static str,
}

impl Number {
    pub fn new(range: RangeInclusive<u64>, unit: &'static str) -> Number {
        Number { range, unit }
    }
}

pub struct Table<'a, 'i> {
    source: &'a Source<'a>,
    /// As complaints name it: "camera.front".
    name: String,
    begin: usize,
    table: &'a DeTable<'i>,
    /// What was asked for: any other key is a mistake.
    known: RefCell<Vec<&'static str>>,
}

impl<'a, 'i> Table<'a, 'i> {
    pub fn new(source: &'a Source<'a>, name: &str, begin: usize, table: &'a DeTable<'i>) -> Table<'a, 'i> {
        Table { source, name: name.to_owned(), begin, table, known: RefCell::default() }
    }

    /// About the table as a whole.
    pub fn complain(&self, message: impl Display) {
        self.complain_at(self.begin, message);
    }

    pub fn complain_at(&self, at: usize, message: impl Display) {
        self.source.complain(at, &self.name, &message.to_string());
    }

    /// A key is not there; said of the table, or else of the key `beside` that makes it necessary.
    pub fn complain_of_missing(&self, key: &'static str, beside: Option<&str>, message: impl Display) {
        let at = beside.and_then(|beside| self.entry(beside)).map_or(self.begin, |(key, _)| key.span().start);
        self.source.complain_about(About::Missing(key), at, &self.name, &message.to_string());
    }

    pub fn complain_of_key(&self, key: &str, message: impl Display) {
        let at = self.entry(key).map_or(self.begin, |(key, _)| key.span().start);
        self.complain_at(at, message);
    }

    pub fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    pub fn all(&self) -> impl Iterator<Item = (&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>)> {
        self.table.iter()
    }

    /// Where a key's value begins.
    pub fn place_of(&self, key: &str) -> usize {
        self.entry(key).map_or(self.begin, |(_, value)| value.span().start)
    }

    fn entry(&self, key: &str) -> Option<(&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>)> {
        self.table.get_key_value(key)
    }

    /// A value that is a table of its own.
    pub fn table(&self, key: &'static str) -> Option<Table<'a, 'i>> {
        let (_, value) = self.take(key)?;
        self.subtable(key, value)
    }

    pub fn subtable(&self, key: &str, value: &'a Spanned<DeValue<'i>>) -> Option<Table<'a, 'i>> {
        let name = match self.name.as_str() {
            "" => key.to_owned(),
            name => format!("{name}.{}", shown(key)),
        };
        match value.get_ref() {
            DeValue::Table(table) => Some(Table::new(self.source, &name, value.span().start, table)),
            _ => {
                let name = if name == "camera" { "camera.NAME" } else { &name };
                self.refuse(key, value, &format!("a table: write [{name}] and its keys below"));
                None
            }
        }
    }

    /// A text that `read` takes; where it does not, its reason, or else `what` the text has to be.
    pub fn text<T>(&self, key: &'static str, what: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (_, value) = self.take(key)?;
        let DeValue::String(text) = value.get_ref() else {
            self.refuse(key, value, what);
            return None;
        };
        let read = if text.len() > TEXT_MOST { Err("it is too long".to_owned()) } else { read(text) };
        self.accept(key, value, what, read)
    }

    /// A text or a number, as it is written.
    pub fn literal<T>(&self, key: &'static str, what: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (_, value) = self.take(key)?;
        let text = match value.get_ref() {
            DeValue::String(text) => text,
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => {
                self.refuse(key, value, what);
                return None;
            }
        };
        self.accept(key, value, what, read(text))
    }

    fn accept<T>(&self, key: &str, value: &Spanned<DeValue<'i>>, what: &str, read: Result<T, String>) -> Option<T> {
        match read {
            Ok(read) => return Some(read),
            Err(reason) if reason.is_empty() => self.refuse(key, value, what),
            Err(reason) => {
                let message = format!("{key} = {}: {reason}", self.shown_value(value));
                self.complain_at(value.span().start, message);
            }
        }
        None
    }

    pub fn number(&self, key: &'static str, number: Number) -> Option<u64> {
        let Number { range, unit } = number;
        let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
        let what = format!("a whole number from {} to {}{unit}", range.start(), range.end());
        let (_, value) = self.take(key)?;
        let read = whole(value).and_then(|read| u64::try_from(read).ok()).filter(|read| range.contains(read));
        if read.is_none() {
            self.refuse(key, value, &what);
        }
        read
    }

    pub fn integer(&self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let (_, value) = self.take(key)?;
        let read = whole(value).filter(|read| range.contains(read));
        if read.is_none() {
            self.refuse(key, value, &format!("a whole number from {} to {}", range.start(), range.end()));
        }
        read
    }

    pub fn flag(&self, key: &'static str) -> Option<bool> {
        let (_, value) = self.take(key)?;
        let read = value.get_ref().as_bool();
        if read.is_none() {
            self.refuse(key, value, "true or false");
        }
        read
    }

    /// A control's value: a number, or true and false for 1 and 0.
    pub fn control_value(&self, key: &str) -> Option<i64> {
        let (_, value) = self.entry(key)?;
        let read = value.get_ref().as_bool().map(i64::from).or_else(|| whole(value));
        if read.is_none() {
            self.refuse(key, value, "a whole number, or true or false");
        }
        read
    }

    /// A number of bytes: 4096, or "512MiB".
    pub fn bytes(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let (least, most) = (shown_bytes(*range.start()), shown_bytes(*range.end()));
        let what = format!("a number of bytes from {least} to {most}, such as \"512MiB\"");
        let read = |text: &str| bytes(text).filter(|bytes| range.contains(bytes)).ok_or_else(String::new);
        self.literal(key, &what, read)
    }

    /// A time: 2.5, or "300ms".
    pub fn time(&self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let (least, most) = (crate::naming::shown(*range.start()), crate::naming::shown(*range.end()));
        let what = format!("a time from {least} to {most}, such as \"500ms\", 5 or \"2m\"");
        let read =
            |text: &str| crate::naming::time(text).ok().filter(|time| range.contains(time)).ok_or_else(String::new);
        self.literal(key, &what, read)
    }

    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
        let what = match quoted.split_last() {
            Some((last, before)) => format!("{} or {last}", before.join(", ")),
            None => String::new(),
        };
        self.text(key, &what, |text| {
            let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
            found.ok_or_else(|| match nearest(text, &names) {
                Some(near) => format!("it has to be {what}; did you mean {near:?}?"),
                None => String::new(),
            })
        })
    }

    /// Complains of keys that nobody asked for.
    pub fn refuse_others(&self) {
        let known = self.known.borrow();
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let near = nearest(name, &known);
            let advice = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None if value.get_ref().is_table() && self.name.starts_with("camera.") => {
                    let camera = self.name.strip_prefix("camera.").unwrap_or_default();
                    format!("a camera's name with a dot stands in quotes: [camera.\"{camera}.{}\"]", shown(name))
                }
                None => format!("known are {}", known.join(", ")),
            };
            let message = format!("there is no key {}; {advice}", shown(&format!("{name:?}")));
            self.source.complain_about(near.map_or(About::Other, About::Slip), key.span().start, &self.name, &message);
        }
    }

    fn take(&self, key: &'static str) -> Option<(&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>)> {
        self.known.borrow_mut().push(key);
        // Nothing stands where the file could not be read, which was told.
        self.entry(key).filter(|(_, value)| !value.span().is_empty())
    }

    fn refuse(&self, key: &str, value: &Spanned<DeValue<'i>>, what: &str) {
        let (key, value_shown) = (shown(key), self.shown_value(value));
        self.complain_at(value.span().start, format_args!("{key} = {value_shown}: it has to be {what}"));
    }

    /// The value as the file has it.
    fn shown_value(&self, value: &Spanned<DeValue<'i>>) -> String {
        match value.get_ref() {
            DeValue::Table(_) => "a table".to_owned(),
            _ => shown(self.source.text.get(value.span()).unwrap_or("...")),
        }
    }
}

/// A piece of the file on one line, not too long.
pub fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_MOST)
        .flat_map(|c| {
            // What would steer a terminal is escaped, and nothing else: quotes stay as they are.
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if text.chars().nth(SHOWN_MOST).is_some() {
        shown += "...";
    }
    shown
}

fn whole(value: &Spanned<DeValue<'_>>) -> Option<i64> {
    let number = value.get_ref().as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?.trim_end(), *unit))).unwrap_or((text, 1));
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    // Numbers like 1.5GiB; so large ones that this is inexact are refused by their range.
    let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
    let bytes = number * unit as f64;
    (unit > 1 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

fn shown_bytes(bytes: u64) -> String {
    let unit = UNITS
        .iter()
        .filter(|(name, _)| name.ends_with("iB"))
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// What was probably meant.
fn nearest(written: &str, known: &[&'static str]) -> Option<&'static str> {
    let written = written.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&written, name);
    // A third of the letters wrong is still a slip; more is another word.
    let near = known.iter().map(|name| (distance(name), *name)).min()?;
    (near.0 <= near.1.len().div_ceil(3)).then_some(near.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (written, meant) in
            [("4096", 4096), ("512MiB", 512 << 20), ("1.5 GiB", 3 << 29), ("2GB", 2_000_000_000), ("7B", 7)]
        {
            assert_eq!(bytes(written), Some(meant), "{written}");
        }
        for wrong in ["", "MiB", "-1", "1.5", "1e999GiB", "99999999999999999999TiB", "12 apples"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        assert_eq!(
            (shown_bytes(1 << 20), shown_bytes(1 << 50), shown_bytes(0)),
            ("1MiB".into(), "1024TiB".into(), "0".into())
        );
    }

    #[test]
    fn the_nearest_key_is_a_slip_away() {
        let known = ["uri", "width", "height", "fps", "format"];
        for (written, meant) in [("widht", "width"), ("Height", "height"), ("url", "uri"), ("formt", "format")] {
            assert_eq!(nearest(written, &known), Some(meant));
        }
        assert_eq!(nearest("brightness", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn places_count_characters() {
        let source = Source::new("a\nöä = 3", "f");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position("a\nöä".len()), (2, 3));
        assert_eq!(source.position(1000), (2, 7));
    }

    #[test]
    fn what_is_shown_is_one_short_line() {
        assert_eq!(shown("a\u{1b}\n\"b\""), "a\\u{1b}\\n\"b\"");
        assert_eq!(shown(&"x".repeat(41)), "x".repeat(40) + "...");
    }
}
