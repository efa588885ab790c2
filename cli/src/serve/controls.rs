//! Controls by the names that drivers give them, or by their numbers; and that a camera which comes back has them again.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use camlease::{Camera, Control, Error, Kind};

use super::config::Setting;
use super::journal::{Level, say};

/// Sets them all, as far as that can be done; what could not.
pub fn set(camera: &Camera, settings: &[Setting]) -> Vec<Error> {
    if settings.is_empty() {
        return Vec::new();
    }
    let offered = match camera.controls() {
        Ok(offered) => offered,
        Err(error) => return vec![error.context("its controls cannot be set")],
    };
    let set = |setting: &Setting| {
        let control = find(&offered, &setting.control)?;
        camera.set_control(control.id, setting.value).map_err(|error| error.context(format_args!("{}", control.name)))
    };
    settings.iter().filter_map(|setting| set(setting).err()).collect()
}

/// Sets the controls again of a camera that comes back: what was plugged in again, or somebody else's meanwhile, has other
/// values. By a thread of its own, as all that asks the camera waits where its driver hangs.
pub struct Kept(Arc<Shared>);

struct Shared {
    wanted: Mutex<Wanted>,
    told: Condvar,
}

struct Wanted {
    settings: Vec<Setting>,
    look: bool,
}

impl Kept {
    pub fn begin(name: &str, camera: Arc<Camera>, settings: &[Setting]) -> io::Result<Kept> {
        let wanted = Mutex::new(Wanted { settings: settings.to_vec(), look: false });
        let shared = Arc::new(Shared { wanted, told: Condvar::new() });
        let (own, name, returns) = (shared.clone(), name.to_owned(), camera.stats().reconnects);
        let thread = std::thread::Builder::new().name("camlease-control".into());
        thread.spawn(move || own.keep(&name, &camera, returns))?;
        Ok(Kept(shared))
    }

    /// Has it looked whether the camera was away.
    pub fn look(&self) {
        self.0.wanted().look = true;
        self.0.told.notify_one();
    }

    pub fn change(&self, settings: &[Setting]) {
        self.0.wanted().settings = settings.to_vec();
    }
}

impl Shared {
    fn keep(&self, name: &str, camera: &Camera, mut returns: u64) {
        let mut set_last: Option<Vec<Setting>> = None;
        loop {
            let waited = self.told.wait_while(self.wanted(), |wanted| !wanted.look);
            let mut wanted = waited.unwrap_or_else(PoisonError::into_inner);
            wanted.look = false;
            let settings = wanted.settings.clone();
            drop(wanted);
            let returned = camera.stats().reconnects;
            let is_back = std::mem::replace(&mut returns, returned) != returned;
            // Others may have been configured and set while the former ones were set here.
            if is_back || set_last.as_ref().is_some_and(|last| *last != settings) {
                for failure in set(camera, &settings) {
                    say(Level::Warning, name, failure);
                }
                set_last = Some(settings);
            }
        }
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A control by its number, decimal or with 0x, or by its name, whatever is written between its words.
fn find<'a>(offered: &'a [Control], wanted: &str) -> camlease::Result<&'a Control> {
    let names: Vec<_> = offered.iter().map(|control| (control.id, control.name.clone())).collect();
    find_among(&names, wanted).map(|at| &offered[at])
}

/// The same, by what is known of them; its place.
pub fn find_among(offered: &[(u32, String)], wanted: &str) -> camlease::Result<usize> {
    let number = match wanted.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => wanted.parse().ok(),
    };
    let plain = plain(wanted);
    let found = offered.iter().position(|(id, name)| number == Some(*id) || self::plain(name) == plain);
    found.ok_or_else(|| {
        let near = |name: &&String| strsim::damerau_levenshtein(&self::plain(name), &plain);
        let names = || offered.iter().map(|(_, name)| name);
        let error = Error::new(Kind::InvalidArgument, format!("there is no control \"{wanted}\""));
        match names().min_by_key(near).filter(|name| near(name) <= name.len().div_ceil(3)) {
            Some(name) => error.hint(format_args!("did you mean \"{name}\"?")),
            None => {
                let names: Vec<_> = names().map(String::as_str).collect();
                error.hint(format_args!("it has {}", if names.is_empty() { "none".into() } else { names.join(", ") }))
            }
        }
    })
}

/// `white_balance_automatic` and "White Balance, Automatic" are the same.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use camlease::ControlKind;

    fn control(id: u32, name: &str) -> Control {
        Control {
            id,
            name: name.into(),
            kind: ControlKind::Integer,
            minimum: 0,
            maximum: 1,
            step: 1,
            default: 0,
            readable: true,
            writable: true,
            active: true,
            menu: Vec::new(),
        }
    }

    #[test]
    fn controls_are_found_by_name_and_number() {
        let offered = [control(0x98_0900, "Brightness"), control(0x98_090c, "White Balance, Automatic")];
        for (wanted, id) in [("brightness", 0x98_0900), ("0x0098090c", 0x98_090c), ("9963776", 0x98_0900)] {
            assert_eq!(find(&offered, wanted).unwrap().id, id);
        }
        assert_eq!(find(&offered, "white_balance_automatic").unwrap().id, 0x98_090c);
        assert!(find(&offered, "brigthness").unwrap_err().message().contains("did you mean \"Brightness\"?"));
        assert!(find(&offered, "zoom").unwrap_err().message().contains("it has Brightness, White"));
    }
}
