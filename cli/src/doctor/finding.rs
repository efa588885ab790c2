//! What a check found: one trouble, and what to do about it.

use serde::Serialize;
use serde_json::{Map, Value};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody cannot use a camera because of it.
    Problem,
    /// The cameras may work now, and will not always.
    Warning,
    /// Good to know where something else does not work. A machine with nothing but notes is healthy.
    Note,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Its name for programs, which stays.
    pub id: &'static str,
    pub severity: Severity,
    /// The node that it is about, or the USB device where there is none; nothing where it concerns all.
    pub camera: Option<String>,
    pub what: String,
    pub remedy: String,
    pub facts: Map<String, Value>,
}

impl Finding {
    pub fn problem(id: &'static str, what: impl Into<String>) -> Finding {
        Finding::new(id, Severity::Problem, what.into())
    }

    pub fn warning(id: &'static str, what: impl Into<String>) -> Finding {
        Finding::new(id, Severity::Warning, what.into())
    }

    pub fn note(id: &'static str, what: impl Into<String>) -> Finding {
        Finding::new(id, Severity::Note, what.into())
    }

    fn new(id: &'static str, severity: Severity, what: String) -> Finding {
        Finding { id, severity, camera: None, what, remedy: String::new(), facts: Map::new() }
    }

    pub fn of(mut self, camera: impl ToString) -> Finding {
        self.camera = Some(camera.to_string());
        self
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = remedy.into();
        self
    }

    pub fn fact(mut self, name: &str, value: impl Into<Value>) -> Finding {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Several facts: the members of a JSON object.
    pub fn facts(mut self, facts: Value) -> Finding {
        if let Value::Object(facts) = facts {
            self.facts.extend(facts);
        }
        self
    }
}
