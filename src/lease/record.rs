//! What a lease's file says: lines of a word and a value, in a first line that tells what the holder does.

use super::Record;
use crate::policy;

/// What the holder does now. One byte of the file, so that it changes at once or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// It waits for the camera, and made its lease ready.
    Waiting,
    Open,
    Streaming,
    /// It let the camera go, and could not remove what an earlier holder of another user's left behind.
    Ended,
}

const HEAD: &str = "camlease lease 1 ";
const SINCE: &str = "since ";
/// Where in the file the byte is.
pub const DOING_AT: u64 = HEAD.len() as u64;

impl Doing {
    pub fn byte(self) -> u8 {
        match self {
            Doing::Waiting => b'w',
            Doing::Open => b'o',
            Doing::Streaming => b's',
            Doing::Ended => b'e',
        }
    }

    fn of(byte: u8) -> Option<Doing> {
        [Doing::Waiting, Doing::Open, Doing::Streaming, Doing::Ended].into_iter().find(|doing| doing.byte() == byte)
    }
}

/// A lease as its holder wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub doing: Doing,
    pub pid: i32,
    pub start_time: u64,
    /// The process-id name space in which `pid` counts.
    pub space: u64,
    /// The machine's run: what an earlier one left behind says nothing.
    pub boot: String,
    /// Which of the devices that had this key one after the other.
    pub instance: String,
    pub priority: i32,
    pub since_ns: u64,
    pub name: String,
    /// The name under which the camera is shared.
    pub share: Option<String>,
}

impl Entry {
    /// Where in the file the time begins: second, so that it has a place of its own.
    pub const SINCE_AT: u64 = DOING_AT + 2 + SINCE.len() as u64;

    /// The time, as long as any other.
    pub fn since_text(since_ns: u64) -> String {
        format!("{since_ns:020}")
    }

    pub fn to_text(&self) -> String {
        let Entry { pid, start_time, space, boot, instance, priority, since_ns, .. } = self;
        let text = format!(
            "{HEAD}{}\n{SINCE}{}\npid {pid}\nstart {start_time}\nspace {space}\nboot {boot}\ninstance {}\n\
             priority {priority}\nname {}\n",
            self.doing.byte() as char,
            Entry::since_text(*since_ns),
            one_line(instance),
            one_line(&self.name),
        );
        self.share.iter().fold(text, |text, share| text + &Entry::share_text(share))
    }

    /// The last line, which comes and goes.
    pub fn share_text(share: &str) -> String {
        format!("share {share}\n")
    }

    /// `None` for what no version of this library wrote.
    pub fn parse(text: &str) -> Option<Entry> {
        let doing = Doing::of(*text.strip_prefix(HEAD)?.as_bytes().first()?)?;
        Some(Entry {
            doing,
            pid: number(text, "pid")?,
            start_time: number(text, "start")?,
            space: number(text, "space")?,
            boot: field(text, "boot")?.to_owned(),
            instance: field(text, "instance")?.to_owned(),
            priority: number(text, "priority")?,
            since_ns: number(text, "since")?,
            // Anybody can write a file of this form: what would steer a terminal is taken out here, too.
            name: one_line(field(text, "name")?),
            share: field(text, "share").filter(|name| is_share_name(name)).map(str::to_owned),
        })
    }

    pub fn record(&self) -> Record {
        Record {
            name: self.name.clone(),
            priority: self.priority,
            since_ns: self.since_ns,
            streaming: self.doing == Doing::Streaming,
            share: self.share.clone(),
        }
    }
}

/// Whether a camera may be shared by this name.
pub fn is_share_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=policy::SHARE_NAME_MOST).contains(&name.len()) && name.bytes().all(allowed)
}

/// The value of a line that begins with `word`.
pub fn field<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.lines().skip(1).find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
}

pub fn number<N: std::str::FromStr>(text: &str, word: &str) -> Option<N> {
    field(text, word)?.parse().ok()
}

/// A host's or another process's text, as a value: bounded, and without line ends and other control characters.
pub fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().map(|c| if c.is_control() { '?' } else { c }) {
        if line.len() + c.len_utf8() > policy::NAME_MOST {
            break;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            doing: Doing::Streaming,
            pid: 812,
            start_time: 77,
            space: 4_026_531_836,
            boot: "b".into(),
            instance: String::new(),
            priority: -3,
            since_ns: 5,
            name: "nav: front".into(),
            share: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(Entry::parse(&entry().to_text()), Some(entry()));
        let shared = Entry { share: Some("front".into()), ..entry() };
        assert_eq!(Entry::parse(&shared.to_text()), Some(shared));
        let evil = Entry { name: "a\npid 1\nb\u{1b}[2J".into(), ..entry() };
        let read = Entry::parse(&evil.to_text()).unwrap();
        assert_eq!((read.pid, read.name.as_str()), (812, "a?pid 1?b?[2J"));
        let long = Entry { name: "ä".repeat(10_000), ..entry() };
        assert_eq!(Entry::parse(&long.to_text()).unwrap().name.len(), policy::NAME_MOST);
    }

    #[test]
    fn the_byte_of_what_it_does_is_where_it_is_written() {
        let mut text = entry().to_text().into_bytes();
        assert_eq!(text[DOING_AT as usize], b's');
        let since = Entry::since_text(77);
        text[Entry::SINCE_AT as usize..][..since.len()].copy_from_slice(since.as_bytes());
        assert_eq!(Entry::parse(std::str::from_utf8(&text).unwrap()).unwrap().since_ns, 77);
        text[DOING_AT as usize] = Doing::Ended.byte();
        assert_eq!(Entry::parse(std::str::from_utf8(&text).unwrap()).unwrap().doing, Doing::Ended);
    }

    #[test]
    fn what_is_none_is_refused() {
        let text = entry().to_text();
        for bad in ["", "camlease lease 1 ", "camlease lease 1 x\n", "camlease lease 2 o\npid 1\n"] {
            assert_eq!(Entry::parse(bad), None, "{bad:?}");
        }
        for line in text.lines().skip(1) {
            assert_eq!(Entry::parse(&text.replace(line, "")), None, "without {line:?}");
        }
        assert_eq!(Entry::parse(&text.replace("pid 812", "pid 99999999999")), None);
    }
}
